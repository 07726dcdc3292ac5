"""Which scope of Python a name belongs to: the rules of the language reference, section 4.2, on syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(slots=True)
class Scope:
    """One scope: what is local to it, and what it says belongs to the module or to a function around it."""

    kind: Literal["module", "class", "function", "comprehension"]
    local: set[str] = field(default_factory=set)
    of_module: set[str] = field(default_factory=set)
    of_outer: set[str] = field(default_factory=set)


def is_global(name: str, scopes: list[Scope]) -> bool:
    """Whether a name used in the last of the scopes is the module's (or a builtin)."""
    for distance, scope in enumerate(reversed(scopes)):
        if scope.kind == "module":
            return True
        if scope.kind == "class" and distance:
            continue  # a class's names are not seen from the functions and comprehensions in it
        if name in scope.of_module:
            return True
        if name in scope.local and name not in scope.of_outer:
            return False
    return True


def storing_scope(scopes: list[Scope]) -> Scope:
    """Return the scope that a walrus stores in: comprehensions pass it on to what is around them."""
    return next(scope for scope in reversed(scopes) if scope.kind != "comprehension")


def function_scope(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Scope:
    """Return a function's own scope: parameters and what its body stores."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    scope = body_scope("function", body)
    scope.local |= {one.arg for one in named}
    return scope


def body_scope(kind: Literal["class", "function"], body: Iterable[ast.AST]) -> Scope:
    """Return the scope of a class's or function's body."""
    scope = Scope(kind)
    for node in body:
        _collect(node, scope)
    scope.local -= scope.of_module
    return scope


def comprehension_scope(generators: Iterable[ast.comprehension]) -> Scope:
    """Return the scope of a comprehension: the targets of its loops."""
    scope = Scope("comprehension")
    for generator in generators:
        scope.local |= stored_names(generator.target)
    return scope


def stored_names(target: ast.AST) -> set[str]:
    """Return the names that are bound in a target."""
    return {n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def names_of_import(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the names that an import binds; "*" for a star-import."""
    if isinstance(node, ast.Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    return [alias.asname or alias.name for alias in node.names]


def _collect(node: ast.AST, scope: Scope) -> None:
    """Add what a node binds in this scope; nested functions and classes bind only their own name."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            scope.local.add(name)
        case ast.Global(names=names):
            scope.of_module.update(names)
        case ast.Nonlocal(names=names):
            scope.of_outer.update(names)
        case ast.Import() | ast.ImportFrom():
            scope.local.update(names_of_import(node))
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            scope.local.add(name)
        case ast.MatchMapping(rest=str(name)):
            scope.local.add(name)
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        if not isinstance(node, ast.Lambda):
            scope.local.add(node.name)
        for child in evaluated_outside(node):
            _collect(child, scope)
        return
    if isinstance(node, COMPREHENSIONS):
        targets = comprehension_scope(node.generators).local
        inner = Scope("comprehension")
        for child in ast.iter_child_nodes(node):
            _collect(child, inner)
        scope.local |= inner.local - targets  # what is left are walruses
        return
    for child in ast.iter_child_nodes(node):
        _collect(child, scope)


def evaluated_outside(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a function or class that are evaluated around it: decorators, defaults, bases, annotations."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *(k.value for k in node.keywords)]
    if not isinstance(node, FUNCTIONS):
        return []
    arguments = node.args
    parts: list[ast.AST] = [*arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)]
    if not isinstance(node, ast.Lambda):
        parts += node.decorator_list
    return parts


def annotations_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    """Return the annotations of a function's parameters and result."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    found = [one.annotation for one in every if one is not None and one.annotation is not None]
    return [*found, *([node.returns] if node.returns is not None else [])]
