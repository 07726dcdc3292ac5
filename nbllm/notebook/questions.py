"""`%llm What is an ECDF?` is a question to the model: without this, IPython reads the last `?` as a call for help."""

from __future__ import annotations

import re
from typing import Any

_QUESTION = re.compile(r"^(?P<target>\s*(?:[\w.,\[\] ]+=\s*)?)%(?P<name>llm|nbllm)\s+(?P<line>\S.*\?+)\s*$")


def ask_not_help(lines: list[str]) -> list[str]:
    """Return a cell's lines with each `%llm ... ?` as the call that it stands for; `%llm?` and cell magics stay as they are."""
    if not lines or lines[0].startswith("%%"):
        return lines
    return [_rewritten(line) for line in lines]


def _rewritten(line: str) -> str:
    match = _QUESTION.match(line)
    if match is None:
        return line
    return f"{match['target']}get_ipython().run_line_magic({match['name']!r}, {match['line']!r})\n"


class Questions:
    """The transformer in a shell, from when it is made until `remove`."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        shell.input_transformers_cleanup.append(ask_not_help)

    def remove(self) -> None:
        """Take it out again."""
        if ask_not_help in self._shell.input_transformers_cleanup:
            self._shell.input_transformers_cleanup.remove(ask_not_help)
