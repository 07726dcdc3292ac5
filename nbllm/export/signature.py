"""What a service would refuse of a flow's signature, as far as its text says it: for slices that cannot be tried."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from nbllm.export.cells import Cell
from nbllm.export.lexer import read_code
from nbllm.export.refusals import Refusal
from nbllm.export.slicer import Slice

_ANNOTATE = "Annotate it with what JSON can hold: str, int, list[str], a dataclass, a TypedDict or a pydantic model"


def signature_refusals(found: Slice, cells: Sequence[Cell]) -> list[Refusal]:
    """Return a refusal for each parameter, and for the result, that has no annotation or takes anything."""
    number = next((kept.number for kept in found.kept if kept.reason == f"defines the flow {found.flow}"), None)
    source = next((cell.source for cell in cells if cell.number == number), "")
    tree = read_code(source).tree
    last = None
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == found.flow:
            last = node
    told = _faults(last) if last is not None else ()
    return [Refusal(kind="proof", cell=number, line=line, reason=f"{found.flow}: {what}", todo=todo) for line, what, todo in told]


def _faults(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[int, str, str]]:
    arguments = node.args
    for stars, one in (("*", arguments.vararg), ("**", arguments.kwarg)):
        if one is not None:
            yield one.lineno, f"{stars}{one.arg} takes anything", "Name the parameters, or take a list or a dict"
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if one.annotation is None:
            yield one.lineno, f"the parameter {one.arg} has no annotation", _ANNOTATE
    if node.returns is None:
        yield node.lineno, "what it returns has no annotation", _ANNOTATE
