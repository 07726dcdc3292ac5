"""Paths in code, as far as they are written out: constants, names of constants, joined parts; what cannot be seen is a wildcard."""

from __future__ import annotations

import ast
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

_MOST = 12
_LEVELS = 8
_SAME = {"os.path.abspath", "os.path.expanduser", "os.path.realpath", "os.path.normpath", "os.fspath", "str", "sorted", "list"}
_SAME_METHODS = {"resolve", "absolute", "expanduser", "as_posix"}
_PATHS = {"pathlib.Path", "pathlib.PurePath", "pathlib.PosixPath", "pathlib.PurePosixPath", "os.path.join", "posixpath.join"}

Naming = Callable[[ast.AST], str]
"""Returns what an expression names in full, "" for what is nothing imported."""


class PathTexts:
    """Reads paths in some code. trees: all of it that belongs together. here: the path of the file, where `__file__` is one."""

    def __init__(self, trees: Iterable[ast.AST], naming: Naming, here: str = "") -> None:
        self._naming = naming
        self._here = here
        self._known: defaultdict[str, list[ast.expr]] = defaultdict(list)
        for tree in trees:
            for node in ast.walk(tree):
                for name, value in _given(node):
                    self._known[name].append(value)

    def of(self, node: ast.AST | None, levels: int = _LEVELS) -> list[str]:
        """Return the paths that an expression may be, each with * for what is not written out; [] when nothing is."""
        found = self._of(node, levels) if node is not None else []
        return [one for one in dict.fromkeys(found) if one.strip("*/")][:_MOST]

    def _of(self, node: ast.AST, levels: int) -> list[str]:
        if levels <= 0:
            return []
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.Name(id="__file__"):
                return [self._here] if self._here else []
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in self._known and name != "parent":
                return [one for value in self._known[name][:_MOST] for one in self._of(value, levels - 1)]
            case ast.Attribute(attr="parent", value=inner):
                return [posixpath.dirname(one) or "." for one in self._of(inner, levels - 1)]
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._joined([left, right], levels)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._product([left, right], levels, "".join)
            case ast.JoinedStr(values=values):
                return self._product(values, levels, "".join)
            case ast.FormattedValue(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
                return self._of(inner, levels - 1)
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements) | ast.Dict(values=elements):
                return [text for one in elements[:_MOST] for text in self._of(one, levels - 1)]
            case ast.BoolOp(values=several):
                return [text for one in several for text in self._of(one, levels - 1)]
            case ast.IfExp(body=one, orelse=other):
                return [*self._of(one, levels - 1), *self._of(other, levels - 1)]
            case ast.Call():
                return self._of_call(node, levels)
        return []

    def _of_call(self, node: ast.Call, levels: int) -> list[str]:
        name = self._naming(node.func)
        if name in _PATHS:
            return self._joined(node.args, levels) if node.args else ["."]
        if name in _SAME and node.args:
            return self._of(node.args[0], levels - 1)
        if name == "os.path.dirname" and node.args:
            return [posixpath.dirname(one) or "." for one in self._of(node.args[0], levels - 1)]
        if isinstance(node.func, ast.Attribute):
            method, inner = node.func.attr, node.func.value
            if method in _SAME_METHODS:
                return self._of(inner, levels - 1)
            if method in {"joinpath", "glob", "rglob"}:
                return self._joined([inner, *node.args], levels)
            if method == "iterdir":
                return [posixpath.join(one, "*") for one in self._of(inner, levels - 1)]
            if method == "items":
                return self._of(inner, levels - 1)
        return []

    def _joined(self, parts: list[ast.expr], levels: int) -> list[str]:
        return self._product(parts, levels, lambda texts: posixpath.join(*(t or "*" for t in texts)))

    def _product(self, parts: list[ast.expr], levels: int, join: Callable[[list[str]], str]) -> list[str]:
        rows: list[list[str]] = [[]]
        for part in parts:
            texts = self._of(part, levels - 1) or ["*"]
            rows = [[*row, text] for row in rows for text in texts][:_MOST]
        return [join(row) for row in rows if row]


def _given(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield names and the values that a node gives to them: assignments, loops, defaults of parameters."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((name, value) for target in targets for name in _names(target))
        case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
            yield from ((name, value) for name in _names(target))
        case (
            ast.For(target=target, iter=value)
            | ast.AsyncFor(target=target, iter=value)
            | ast.comprehension(target=target, iter=value)
        ):
            yield from ((name, value) for name in _names(target))
        case ast.arguments():
            plain = [*node.posonlyargs, *node.args]
            pairs = [
                *zip(reversed(plain), reversed(node.defaults), strict=False),
                *zip(node.kwonlyargs, node.kw_defaults, strict=True),
            ]
            yield from ((parameter.arg, default) for parameter, default in pairs if default is not None)


def _names(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for one in elements:
                yield from _names(one)
