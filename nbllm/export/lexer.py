"""What in a cell is IPython's and not Python's: magics, shell lines, help, recognised without IPython.

A valid Python program has no logical line that begins with % ! ? / , or ; and none that ends with ?, so whatever parses has no
magics in it. Only for what does not parse the lines are looked at, with strings, brackets and continuations followed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_HELP = re.compile(r"^\s*(?:%{0,2}[\w.*\[\]]+\?{1,2}|\?{1,2}\s*%{0,2}[\w.*]+)\s*;?\s*$")
_ASSIGNED = re.compile(r"^\s*([^=!%'\"#(\[{]+?)\s*=\s*([%!].*)$", re.DOTALL)
_NAME = re.compile(r"[^\W\d]\w*")
_QUOTES = re.compile(r"'''|\"\"\"|'|\"")
_BODY_IS_PYTHON = {"time", "serve", "capture", "prun", "timeit"}
"""Cell magics whose body is code of the notebook. Definitions in the last two do not stay, so these two are refused if needed."""


@dataclass(frozen=True, slots=True)
class Magic:
    """One line that is not Python. kind: "line", "shell", "help", "autocall" or "cell"; name: of a magic, without its %.

    binds: the names that it is assigned to (`x = %magic`, `x = !command`). rest: what follows the name.
    """

    line: int
    kind: Literal["line", "shell", "help", "autocall", "cell"]
    name: str
    rest: str
    text: str
    binds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Code:
    """A cell taken apart.

    python: its Python, line for line, magic lines as `pass`. tree: parsed, None when it is no Python. body: what stands below a
    cell magic whose body is no Python. problem: why it is no Python, with its line.
    """

    python: str
    tree: ast.Module | None
    magics: tuple[Magic, ...] = ()
    cell_magic: Magic | None = None
    body: str = ""
    problem: str = ""
    problem_line: int = 1

    @property
    def body_nodes(self) -> list[ast.stmt]:
        """The top-level statements, [] when it is no Python."""
        return [] if self.tree is None else self.tree.body

    def nodes(self) -> Iterator[ast.AST]:
        """Every node of the tree, none when it is no Python."""
        return iter(()) if self.tree is None else ast.walk(self.tree)


def read_code(source: str) -> Code:
    """Take a cell's source apart. Line numbers are those of the cell."""
    source = _undented(source)
    first = _first_line(source)
    lines = source.split("\n")
    if first is not None and lines[first].startswith("%%"):
        name, _, rest = lines[first][2:].partition(" ")
        magic = Magic(first + 1, "cell", name.strip(), rest.strip(), lines[first])
        if magic.name not in _BODY_IS_PYTHON:
            return Code("", None, cell_magic=magic, body="\n".join(lines[first + 1 :]))
        lines[: first + 1] = [""] * (first + 1)
        return _python("\n".join(lines), magic)
    return _python(source, None)


def _python(source: str, cell_magic: Magic | None) -> Code:
    tree, problem, line = _parsed(source)
    if tree is not None:
        return Code(source, tree, cell_magic=cell_magic)
    python, magics = _without_magics(source)
    if magics:
        tree, problem, line = _parsed(python)
    return Code(python, tree, magics=magics, cell_magic=cell_magic, problem=problem, problem_line=line)


def _parsed(source: str) -> tuple[ast.Module | None, str, int]:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in somebody's string is theirs to hear of, when they run it
            tree = ast.parse(source)
        source.encode("utf-8")
    except SyntaxError as error:
        return None, error.msg, error.lineno or 1
    except (ValueError, RecursionError, MemoryError) as error:  # NUL characters, lone surrogates, nesting
        return None, str(error) or "it is nested too deeply", 1
    return tree, "", 1


def _first_line(source: str) -> int | None:
    return next((number for number, line in enumerate(source.split("\n")) if line.strip()), None)


def _undented(source: str) -> str:
    """Return what IPython runs of an indented cell: the first line's indentation is taken off every line that has it."""
    first = _first_line(source)
    lines = source.split("\n")
    if first is None or not (indent := lines[first][: len(lines[first]) - len(lines[first].lstrip(" \t"))]):
        return source
    return "\n".join(line.removeprefix(indent) for line in lines)


def _without_magics(source: str) -> tuple[str, tuple[Magic, ...]]:
    lines, magics, state = source.split("\n"), [], _State()
    at = 0
    while at < len(lines):
        if state.between and (magic := _magic(lines, at)) is not None:
            magics.append(magic)
            end = at
            while lines[end].endswith("\\") and end + 1 < len(lines):
                end += 1
            indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
            lines[at : end + 1] = [indent + "pass", *[""] * (end - at)]
            at = end + 1
            continue
        state.take(lines[at])
        at += 1
    return "\n".join(lines), tuple(magics)


def _magic(lines: list[str], at: int) -> Magic | None:
    number, text = at + 1, lines[at].strip()
    while text.endswith("\\") and at + 1 < len(lines):
        at += 1
        text = text[:-1] + " " + lines[at].strip()
    if _HELP.match(text):
        return Magic(number, "help", "?", text.strip("? ;"), text)
    assigned = _ASSIGNED.match(text)
    binds = tuple(_NAME.findall(assigned[1])) if assigned else ()
    asked = assigned[2] if assigned else text
    if asked.startswith("%"):
        name, _, rest = asked.lstrip("%").partition(" ")
        return Magic(number, "line", name, rest.strip(), text, binds)
    if asked.startswith("!"):
        return Magic(number, "shell", "!", asked.lstrip("!"), text, binds)
    if text.startswith(("/", ",", ";", "?")):
        return Magic(number, "autocall", text[0], text[1:], text)
    return None


class _State:
    """Where in the program a line begins: in a string, in brackets, after a backslash, or between statements."""

    def __init__(self) -> None:
        self._quote = ""
        self._depth = 0
        self._continued = False

    @property
    def between(self) -> bool:
        """Whether the next line begins a statement."""
        return not self._quote and not self._depth and not self._continued

    def take(self, line: str) -> None:
        """Read one line."""
        at, self._continued = 0, False
        while at < len(line):
            char = line[at]
            if self._quote:
                if char == "\\":
                    at += 2
                elif line.startswith(self._quote, at):
                    at += len(self._quote)
                    self._quote = ""
                else:
                    at += 1
                continue
            if char == "#":
                break
            if match := _QUOTES.match(line, at):
                self._quote = match[0]
                at = match.end()
                continue
            self._depth = max(0, self._depth + (char in "([{") - (char in ")]}"))
            self._continued = char == "\\" and at == len(line) - 1
            at += 1
        if len(self._quote) == 1 and not line.endswith("\\"):
            self._quote = ""
