"""Where in the notebook something of flows.py stands: from a line of the module, or a parameter of the flow, to cell and line.

Statements are counted, not searched for: flows.py holds the statements of the kept cells in their order, however it is laid out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from nbllm.export.cells import Cell
from nbllm.export.lexer import read_code
from nbllm.export.slicer import Slice

Place = tuple[int | None, int | None]
"""A cell's number and a line in it, None where that cannot be told."""


class Places:
    """Finds places of one export. flows: the module's text as it is written."""

    def __init__(self, found: Slice, flows: str, cells: Sequence[Cell]) -> None:
        self._found = found
        self._sources = {cell.number: cell.source for cell in cells}
        body = ast.parse(flows).body
        own = [(kept.number, node) for kept in found.kept for node in ast.parse(kept.text).body]
        first = len(body) - len(own)  # what stands before: the module's own text, and the imports
        self._statements = [(node, number) for node, (number, _) in zip(body[first:], own, strict=True)]

    def of_line(self, line: int) -> Place:
        """Return the place of a line of the module; no cell for the imports at the top."""
        for node, number in self._statements:
            if _first_line(node) <= line <= (node.end_lineno or node.lineno):
                return number, self._in_cell(number, node, line)
        return None, None

    def of_flow(self, parameter: str = "") -> Place:
        """Return where the flow is defined, or where one of its parameters stands."""
        number = next((kept.number for kept in self._found.kept if kept.reason == f"defines the flow {self._found.flow}"), None)
        for node in self._cell_body(number):
            for inner in ast.walk(node):
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name == self._found.flow:
                    return number, next((a.lineno for a in _parameters(inner) if a.arg == parameter), inner.lineno)
        return number, None

    def _cell_body(self, number: int | None) -> list[ast.stmt]:
        tree = read_code(self._sources.get(number or 0, "")).tree
        return [] if tree is None else tree.body

    def _in_cell(self, number: int, node: ast.stmt, line: int) -> int | None:
        """Return the line in the cell: of the same statement there, and of the part of it that has this line in the module."""
        wanted = ast.dump(node)
        before = sum(ast.dump(other) == wanted for other, of in self._before(node) if of == number)
        same = [one for one in self._cell_body(number) if ast.dump(one) == wanted]
        if before >= len(same):
            return None  # a statement that was rewritten
        pairs = zip(ast.walk(node), ast.walk(same[before]), strict=True)
        parts = [(abs(getattr(mine, "lineno", -1) - line), getattr(theirs, "lineno", None)) for mine, theirs in pairs]
        return min((part for part in parts if part[1] is not None), key=lambda part: part[0], default=(0, None))[1]

    def _before(self, node: ast.stmt) -> Iterator[tuple[ast.stmt, int]]:
        for other, number in self._statements:
            if other is node:
                return
            yield other, number


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    return [one for one in ast.walk(node.args) if isinstance(one, ast.arg)]


def _first_line(node: ast.stmt) -> int:
    lines: list[int] = [decorator.lineno for decorator in getattr(node, "decorator_list", ())]
    return min([node.lineno, *lines])
