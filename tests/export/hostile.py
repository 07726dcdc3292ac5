"""Names and cells that look like something else than they are. Data, for tests: more than 500."""

# ruff: noqa: E501 - a table

from __future__ import annotations

from itertools import product

_INJECTIONS = [
    '"""', "'''", '"', "'", "\\", "\\\n", "\\N{BULLET}", "\n", "\r", "\r\n", "\t", "\f", "\v", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x1b[31m",
    '"""\nimport os; os.system("echo PWNED")\n"""', "'''\nraise SystemExit\n'''", '") or __import__("os").abort() or ("', "{{ x }}{% raw %}",
    "{__import__('os')}", "{x!r:>{y}}", "%(x)s", "${HOME}", "`id`", "$(id)", "# type: ignore", "#!/bin/sh", "# -*- coding: utf-7 -*-",
    "# coding: latin-1", "+ACI-", "\u202eevil", "\u200b", "\ufeff", "ﬁ", "𝐟", "é", "e\u0301", "\U0001f600", "\ud800", "<script>", "]]>", "--", "/* */",
    "\\x22", "\\u0022", "\\042", "'+'", '"+"', "f'{x}'", 'r"\\"', "%%llm", "%run x", "!ls", "?x", "#| export", "#| no-export", "return", "yield x", "await x",
    "global x", "@flow", "def f(): pass", "class f: pass", "del f", "f = None", "import f", "__name__ == '__main__'", "exit()", "__import__('os')", "# Cell 2",
]  # fmt: skip
_PLACES = [
    "x = {!r}", "x = [{!r}]  # {}", "# {}\nx = 1", "x = 1  # {}", 'x = """{}"""', "x = '''{}'''", "x = '{}'", 'x = "{}"', 'x = f"{}"', "x = r'{}'",
    "def g():\n    '''{}'''\nx = g", "{}\nx = 1", "x = 1\n{}", "x = 1;{}", "%%llm -o y\n{}", "%%llm -s '{}' -o y\nhi", "x = (1,\n{}\n)",
]  # fmt: skip

CELLS = [place.format(text, text) for place, text in product(_PLACES, _INJECTIONS)]
"""Sources of cells, most of them Python, some not."""

FLOW_NAMES = [text for text in _INJECTIONS if not text.isidentifier()] + [
    "../x",
    "..\\x",
    "f/../../x",
    "CON:",
    "None",
    "match()",
    "f ",
    " f",
]
"""Names that no flow can have."""
