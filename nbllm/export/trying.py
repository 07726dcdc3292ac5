"""Statements that try out what asks a model, on values that the flow reads too: a service would buy their answers at each start."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from nbllm.export.book import Book
from nbllm.export.changeable import CHANGING, is_container
from nbllm.export.checks import bought, executed_now
from nbllm.export.names import ANYTHING, Statement, root_of


def tries_out(statement: Statement, changes: Collection[str], book: Book) -> bool:
    """Whether a statement asks a model now, and what it may change it only hands on, goes through or looks at.

    changes: names that it may change. What is written by it into a container that was made for that (`out = []`) is its own.
    """
    node = statement.node
    if node is None or ANYTHING in statement.binds | statement.touched:
        return False
    asking = [one for one in executed_now(node) if isinstance(one, ast.Call) and bought(one, book.world)]
    if not asking or any(_is_its_method(one.func, changes, book) for one in asking):
        return False
    return all(name not in changes and _is_made_for_results(name, book) for name in _written(node))


def tried_notes(book: Book, kept: Collection[int], wanted: Collection[str]) -> Iterator[str]:
    """Yield a note for each cell that is left out though it may change what a flow needs. kept: places of the other cells."""
    for place, unit in enumerate(book.units):
        for statement in unit.statements if place not in kept else ():
            changes = book.effects.may_change(statement, wanted)
            if changes and tries_out(statement, changes, book):
                names = ", ".join(sorted(changes)[:3])
                yield (
                    f"Cell {unit.cell.number}, line {statement.line} asks a model with {names}: left out as a trial. What it "
                    "changes there, if anything, the service does not have."
                )
                break


def _written(node: ast.stmt) -> Iterator[str]:
    """Yield the names whose objects a statement changes for certain: parts that are set or deleted, methods that change."""
    for one in executed_now(node):
        target: ast.AST | None = None
        match one:
            case ast.Attribute() | ast.Subscript() if not isinstance(one.ctx, ast.Load):
                target = one
            case ast.AugAssign(target=ast.Name() as bound):
                target = bound
            case ast.Call(func=ast.Attribute(attr=method) as function) if method in CHANGING:
                target = function
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[first, *_]):
                target = first
        name = None if target is None else root_of(target)[0]
        if name is not None:
            yield name


def _is_its_method(function: ast.expr, changes: Collection[str], book: Book) -> bool:
    """Whether an object of the notebook that may be changed asks by itself: it may keep what it is told."""
    return isinstance(function, ast.Attribute) and f".{function.attr}" in book.world.buys and root_of(function)[0] in changes


def _is_made_for_results(name: str, book: Book) -> bool:
    made = [s.node for unit in book.units for s in unit.statements if name in s.binds]
    return bool(made) and all(isinstance(node, ast.Assign) and is_container(node.value) for node in made)
