"""Which line of a TOML text a key stands on. tomllib does not say, and an error message must."""

from __future__ import annotations

import re
from collections.abc import Iterator

_KEY_PART = re.compile(r"""\s*(?:([A-Za-z0-9_-]+)|"((?:[^"\\]|\\.)*)"|'([^']*)')\s*""")
_DELIMITERS = ('"""', "'''")


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """Return the 1-based line of the key at `path`, else of the nearest table around it, else None.

    A key inside an inline table or an array has the line of the key that holds it.
    """
    best: tuple[int, int] | None = None
    for line, found in keys(text):
        shared = min(len(found), len(path))  # [a.b] is also where a table `a` first shows
        if shared and found[:shared] == path[:shared] and (best is None or shared > best[0]):
            best = (shared, line)
    return best[1] if best else None


def keys(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line, path) of every table header and of every key at the start of a line, in order."""
    table: tuple[str, ...] = ()
    open_until: str | None = None
    depth = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if open_until is None and depth == 0:
            stripped = line.strip()
            if stripped.startswith("["):
                table = _dotted(stripped.lstrip("["))[0]
                yield number, table
                continue
            path, after = _dotted(line)
            if path and after.startswith("="):
                yield number, table + path
        open_until, depth = _still_open(line, open_until, depth)


def _dotted(text: str) -> tuple[tuple[str, ...], str]:
    """Return the dotted key at the start of a text and what follows it."""
    parts: list[str] = []
    at = 0
    while match := _KEY_PART.match(text, at):
        parts.append(next(group for group in match.groups() if group is not None))
        at = match.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    return tuple(parts), text[at:]


def _still_open(line: str, open_until: str | None, depth: int) -> tuple[str | None, int]:
    """Follow multi-line strings and arrays over one line: the delimiter that is awaited, and how many brackets are open."""
    at = 0
    while at < len(line):
        if open_until is not None:
            if open_until == '"""' and line[at] == "\\":
                at += 2
                continue
            if line.startswith(open_until, at):
                at, open_until = at + 3, None
                continue
            at += 1
        elif line.startswith(_DELIMITERS, at):
            open_until, at = line[at : at + 3], at + 3
        elif line[at] in "\"'":
            at = _after_string(line, at)
        elif line[at] == "#":
            break
        else:
            depth += (line[at] in "[{") - (line[at] in "]}")
            at += 1
    return open_until, max(depth, 0)


def _after_string(line: str, at: int) -> int:
    """Return the place behind the one-line string that begins at `at`."""
    quote = line[at]
    at += 1
    while at < len(line) and line[at] != quote:
        at += 2 if quote == '"' and line[at] == "\\" else 1
    return at + 1
