"""Which names of a notebook hold what it asked outside of any flow: answers that were collected, and what was made of them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from nbllm.export.changeable import CHANGING, is_container
from nbllm.export.checks import World, bought, executed_now
from nbllm.export.names import Statement, root_of


def collected(statements: Sequence[Statement], world: World) -> frozenset[str]:
    """Return the names to which nothing else is ever bound: `preds = [f(t) for t in texts]`, a list that a loop fills, a count.

    What a loop goes through is none: its parts may be the flow's own.
    """
    nodes = [s.node for s in statements if s.node is not None]
    filled = {name for node in nodes if _asks_now(node, world) for name in written(executed_now(node))}
    bound: dict[str, list[ast.stmt]] = defaultdict(list)
    for node in nodes:
        for one in executed_now(node):
            if isinstance(one, ast.Assign | ast.AugAssign | ast.AnnAssign):
                for name in _targets(one):
                    bound[name].append(one)
    otherwise = {name for s in statements for name in s.binds - _assigned(s.node)}
    found: set[str] = set()
    while True:
        more = {
            name
            for name, made in bound.items()
            if name not in found | otherwise
            and all(_asks_now(one, world) or _reads(one) & found or (is_empty(one) and name in filled) for one in made)
        }
        if not more:
            return frozenset(found)
        found |= more


def _targets(node: ast.Assign | ast.AugAssign | ast.AnnAssign) -> set[str]:
    return {name for target in (node.targets if isinstance(node, ast.Assign) else [node.target]) for name in _stored(target)}


def _stored(target: ast.expr) -> set[str]:
    return {one.id for one in ast.walk(target) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _assigned(node: ast.stmt | None) -> set[str]:
    """Return the names that a statement binds by assignments, and by nothing else."""
    found: set[str] = set()
    loops: set[str] = set()
    for one in () if node is None else executed_now(node):
        if isinstance(one, ast.Assign | ast.AugAssign | ast.AnnAssign):
            found |= _targets(one)
        elif isinstance(one, ast.For | ast.AsyncFor):
            loops |= _stored(one.target)
    return found - loops


def _reads(node: ast.stmt) -> set[str]:
    return {one.id for one in executed_now(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}


def written(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names whose objects nodes change for certain: parts that are set or deleted, methods that change."""
    for one in nodes:
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


def is_empty(node: ast.stmt | None) -> bool:
    """Whether a statement binds a new container or a number, as one does to collect something in."""
    return isinstance(node, ast.Assign) and (is_container(node.value) or isinstance(node.value, ast.Constant))


def _asks_now(node: ast.stmt, world: World) -> bool:
    return any(isinstance(one, ast.Call) and bool(bought(one, world)) for one in executed_now(node))
