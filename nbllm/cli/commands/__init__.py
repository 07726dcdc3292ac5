"""One file a command: how it is written on a command line, and what runs it. What it needs is imported when it is run."""
