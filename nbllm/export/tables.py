"""Tables of constants and functions (`LABELS = ["a", "b"]`, `TOOLS = {"weather": weather}`).

Going through one hands out nothing that can be changed, so that a cell which does is none that may change the table.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Mapping

from nbllm.export.imports import full_name
from nbllm.export.names import is_plain, root_of

_READING = {
    "all", "any", "dict", "enumerate", "filter", "list", "map", "max", "min", "random.choice", "random.choices", "random.sample",
    "reversed", "set", "sorted", "sum", "tuple", "zip",
}  # fmt: skip
"""Functions that read the items of what they are given and keep nothing else of it."""
_READING_METHODS = {"copy", "count", "get", "index", "items", "keys", "values"}


def constant_tables(trees: Collection[ast.Module]) -> frozenset[str]:
    """Return the names that are only ever bound to such tables, and of which no cell changes an item by that name."""
    defined = {s.name for tree in trees for s in tree.body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)}
    classes = {s.name for tree in trees for s in tree.body if isinstance(s, ast.ClassDef)}
    tables: Counter[str] = Counter()
    bound: Counter[str] = Counter()
    changed: set[str | None] = {*defined, *classes}
    for statement in (s for tree in trees for s in tree.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value):
                tables[name] += _is_table(value, defined - classes)
    for node in (n for tree in trees for n in ast.walk(tree)):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound[name] += 1
            case ast.AugAssign(target=target):
                changed.add(root_of(target)[0])
            case ast.Attribute() | ast.Subscript() if not isinstance(node.ctx, ast.Load):
                changed.add(root_of(node)[0])
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method not in _READING_METHODS:
                changed.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                changed |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
    return frozenset(name for name, count in tables.items() if count == bound[name] and name not in changed)


def reads_tables(node: ast.AST, tables: Collection[str], imports: Mapping[str, str], rebound: Collection[str]) -> bool:
    """Whether an expression is such a table, or what reading one gives: `TOOLS.items()`, `enumerate(LABELS)`."""
    match node:
        case ast.Name(id=name):
            return name in tables
        case ast.Call(func=ast.Attribute(value=inner, attr=method)) if method in _READING_METHODS:
            return reads_tables(inner, tables, imports, rebound)
        case ast.Call(func=function, args=arguments) if full_name(function, imports) in _READING:
            if isinstance(function, ast.Name) and function.id in rebound and function.id not in imports:
                return False
            return all(
                is_plain(one) or isinstance(one, ast.Lambda) or reads_tables(one, tables, imports, rebound) for one in arguments
            )
    return False


def _is_table(value: ast.expr | None, defined: Collection[str]) -> bool:
    match value:
        case ast.List(elts=items) | ast.Set(elts=items) | ast.Tuple(elts=items):
            return all(_is_item(item, defined) for item in items)
        case ast.Dict(keys=keys, values=items):
            return all(key is not None and _is_item(key, defined) for key in keys) and all(_is_item(i, defined) for i in items)
    return False


def _is_item(item: ast.expr, defined: Collection[str]) -> bool:
    return (isinstance(item, ast.Name) and item.id in defined) or is_plain(item)
