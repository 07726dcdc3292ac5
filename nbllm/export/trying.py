"""Statements that try out what asks a model, on values that the flow reads too, or look at what came of that.

A service would buy their answers at each start. Trying a flow out on its own examples, and counting how often it was right, is what
notebooks are for.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from nbllm.export.answers_kept import is_empty, written
from nbllm.export.book import Book
from nbllm.export.checks import bought, executed_now
from nbllm.export.names import ANYTHING, Statement, root_of

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_SHOWN = 8


def tries_out(statement: Statement, changes: AbstractSet[str], book: Book) -> bool:
    """Whether a statement asks a model now, or looks at answers, and what it may change it only hands on, goes through or looks at.

    changes: names that it may change. What is written by it into a container that was made for that (`out = []`) is its own.
    """
    node = statement.node
    if node is None or ANYTHING in statement.binds | statement.touched:
        return False
    asking = [one for one in executed_now(node) if isinstance(one, ast.Call) and bought(one, book.world)]
    if not (asking or statement.now & book.collected) or any(_is_its_method(one.func, changes, book) for one in asking):
        return False
    if _leaves_something(statement, changes, book):
        return False
    names = set(written(executed_now(node)))
    return changes.isdisjoint(names) and all(_is_made_for_results(name, statement, book) for name in names - book.collected)


def tried_notes(book: Book, kept: AbstractSet[int], wanted: AbstractSet[str]) -> Iterator[str]:
    """Yield a note on the cells that are left out though they may change what a flow needs. kept: places of the other cells."""
    found = []
    for place, unit in enumerate(book.units):
        for statement in unit.statements if place not in kept else ():
            changes = book.effects.may_change(statement, wanted)
            if changes and tries_out(statement, changes, book):
                found.append(f"cell {unit.cell.number}, line {statement.line} (with {', '.join(sorted(changes)[:3])})")
                break
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        cells = "; ".join(found[:_SHOWN])
        yield (
            f"Left out as trials, which ask a model or look at answers: {cells}{more}. What they change there, if anything, the "
            "service does not have."
        )


def _leaves_something(statement: Statement, changes: AbstractSet[str], book: Book) -> bool:
    """Whether functions and methods of the notebook that a statement names write into what they are given, or into what counts.

    Flows aside: what a flow that is tried out leaves behind is no part of what a service starts with.
    """
    functions = _functions(book)
    node = statement.node or ast.Pass()
    for call in (one for one in ast.walk(node) if isinstance(one, ast.Call)):
        method = functions.get(f".{call.func.attr}", []) if isinstance(call.func, ast.Attribute) else []
        if root_of(call.func)[0] in changes and any("self" in written(ast.walk(one)) for one in method):
            return True
    todo, seen = _named(node), set(book.flows)
    while todo:
        name = todo.pop()
        for function in functions.get(name, ()) if name not in seen else ():
            given = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)} - {"self", "cls"}
            bound = {name for one in ast.walk(function) if isinstance(one, ast.Global) for name in one.names}
            if not (given | changes).isdisjoint({*written(ast.walk(function)), *bound}):
                return True
            todo |= _named(function)
        seen.add(name)
    return False


def _functions(book: Book) -> dict[str, list[_Function]]:
    """Return the notebook's functions by their names, methods with a dot before."""
    found: dict[str, list[_Function]] = defaultdict(list)
    for node in (s.node for unit in book.units for s in unit.statements):
        if isinstance(node, _Function):
            found[node.name].append(node)
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, _Function)]
            found[node.name] += [one for one in methods if one.name in {"__init__", "__post_init__", "__call__"}]
            for one in methods:
                found[f".{one.name}"].append(one)
    return found


def _named(node: ast.AST) -> set[str]:
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return names | {f".{one.attr}" for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def _is_its_method(function: ast.expr, changes: AbstractSet[str], book: Book) -> bool:
    """Whether an object of the notebook that may be changed asks by itself: it may keep what it is told."""
    return isinstance(function, ast.Attribute) and f".{function.attr}" in book.world.buys and root_of(function)[0] in changes


def _is_made_for_results(name: str, statement: Statement, book: Book) -> bool:
    made = [s.node for unit in book.units for s in unit.statements if name in s.binds and s is not statement]
    return bool(made) and all(map(is_empty, made))
