"""Defaults that a call can change (`def f(found=[])`): in a service they are shared by all callers, which a person should know."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nbllm.export.book import Book
from nbllm.export.slicer import Choice

_MADE = {"list", "dict", "set"}


def default_notes(book: Book, choice: Choice, flow: str) -> Iterator[str]:
    """Yield a note for each such default of the cells that are kept. The flow's own are copied for each run, others are not."""
    for index in sorted(choice.reasons):
        unit = book.units[index]
        for node in unit.code.nodes():
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for name, kind in _changeable(node.args):
                where = f"Cell {unit.cell.number}: {node.name}({name}=...) has a {kind} as its default"
                if node.name == flow:
                    yield f"{where}; in the service each run gets one of its own, as it was at the start."
                else:
                    yield f"{where}, which all calls of the service share: take None, and make the {kind} inside."


def _changeable(arguments: ast.arguments) -> Iterator[tuple[str, str]]:
    """Yield parameters whose default is a list, a dict or a set, with which it is."""
    placed = [*arguments.posonlyargs, *arguments.args]
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        *zip(placed[len(placed) - len(arguments.defaults) :], arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for one, default in pairs:
        match default:
            case ast.List() | ast.ListComp():
                yield one.arg, "list"
            case ast.Dict() | ast.DictComp():
                yield one.arg, "dict"
            case ast.Set() | ast.SetComp():
                yield one.arg, "set"
            case ast.Call(func=ast.Name(id=name)) if name in _MADE:
                yield one.arg, name
