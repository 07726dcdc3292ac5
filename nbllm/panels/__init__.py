"""What a setting would cost and save, as pure functions of what was recorded: the arithmetic below the panels' sliders.

Each has data, read once from a client (`read`), and `at(data, setting)`, which gives the numbers of one setting of a slider and
needs neither clock nor disk. Nothing here knows a notebook.
"""
