"""Files and connections that a module keeps open once it is imported: through a function, in a class, in a list.

A service would hold them from its start on, in each of its processes, and its callers would share them. Runs in the clean process
of a proof, on the module as it stands.
"""

from __future__ import annotations

import ast
import functools
import io
import logging
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

_LEVELS = 4
_MOST_ITEMS = 1_000


def open_things(module: ModuleType, source: str) -> Iterator[str]:
    """Yield a sentence for each name of a module that holds something open, with its line: "... (line 3 of the module)"."""
    lines = _lines(source)
    for name, value in list(vars(module).items()):
        if not name.startswith("__") and not isinstance(value, ModuleType):
            for path, kind in _open_in(value, name, module.__name__, set(), _LEVELS):
                yield f"{path} holds {kind} open from the start of the service on{_at(lines, name)}"
    for logger in (
        logging.getLogger(),
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ):
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler) and handler.stream is not None and handler.baseFilename != os.devnull:
                yield f"A log handler holds the file {handler.baseFilename!r:.80} open from the start of the service on"


def open_things_beside(flows: Path) -> Iterator[str]:
    """Yield a sentence for what modules that were copied hold open, with file and line. flows: the path of the flow's module."""
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or ".")
        if flows.parent in file.parents and file != flows and file.suffix == ".py":
            source = file.read_text(encoding="utf-8")
            for name, value in list(vars(module).items()):
                if name.startswith("__") or isinstance(value, ModuleType):
                    continue
                for path, kind in _open_in(value, name, module.__name__, set(), _LEVELS):
                    line = _lines(source).get(name)
                    place = f"{file.relative_to(flows.parent).as_posix()}{f', line {line}' if line else ''}"
                    yield f"{place}: {path} holds {kind} open from the start of the service on"


def _open_in(value: Any, path: str, module: str, seen: set[int], levels: int) -> Iterator[tuple[str, str]]:
    if id(value) in seen:
        return
    seen.add(id(value))
    kind = _kind(value)
    if kind:
        yield path, kind
    elif levels:
        for step, inner in _parts(value, module):
            yield from _open_in(inner, path + step, module, seen, levels - 1)


def _kind(value: Any) -> str:
    """Return what is open, "" for what is not."""
    if isinstance(value, io.IOBase):
        texts = isinstance(value, io.StringIO | io.BytesIO) or value in (sys.stdin, sys.stdout, sys.stderr)
        return "" if texts or value.closed else "a file"
    if isinstance(value, socket.socket):
        return "" if value.fileno() < 0 else "a connection"
    if isinstance(value, sqlite3.Connection):
        try:
            value.total_changes  # noqa: B018 - raises on one that is closed
        except sqlite3.ProgrammingError:
            return ""
        return "a database"
    return ""


def _parts(value: Any, module: str) -> Iterator[tuple[str, Any]]:
    """Yield what a value is made of, as far as it is the notebook's own: (".name", part)."""
    if isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        yield from ((f"[{key!r:.40}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset) and len(value) <= _MOST_ITEMS:
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("(...)", part) for part in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
        yield from (("(...)", part) for part in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()))
        yield from ((f".{name}", cell.cell_contents) for name, cell in cells if _is_filled(cell))
    elif getattr(value, "__module__", None) == module or type(value).__module__ == module:
        yield from ((f".{name}", part) for name, part in list(vars(value).items()) if not name.startswith("__"))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where a name is not bound yet
    except ValueError:
        return False
    return True


def _lines(source: str) -> dict[str, int]:
    """Return the line of the last statement that binds each name."""
    found = {}
    for statement in ast.parse(source).body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id] = statement.lineno
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[statement.name] = statement.lineno
    return found


def _at(lines: Mapping[str, int], name: str) -> str:
    return f" (line {lines[name]} of the module)" if name in lines else ""
