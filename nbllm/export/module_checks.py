"""What modules that are copied from beside the notebook hold and a service should not: looked for as in cells, with file and line.

A module travels whole, so nothing of it is lost; what is the same for everybody in a process is refused, the rest is said.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nbllm.export.checks import World, executed_now, opened_by
from nbllm.export.imports import imported
from nbllm.export.names import Definition
from nbllm.export.patch_reader import ANY_MODULE, Patch, patches_in
from nbllm.export.patching import known_names
from nbllm.export.refusals import Refusal

_CONNECT_LATE = ("requests.", "httpx.", "aiohttp.", "redis.", "pymongo.", "concurrent.", "multiprocessing.", "threading.")
"""What of these is made at the start is no open connection yet."""
_RUNS_CODE = {"exec", "eval", "builtins.exec", "builtins.eval"}


def module_refusals(path: str, tree: ast.Module) -> list[Refusal]:
    """Refuse files and connections that a module keeps open, and what it changes of other modules. path: within the export.

    Nothing is refused of a part of a package, which may be there and never imported: `module_notes` has it, and the proof looks
    into those that are.
    """
    return [] if _is_part(path) else _found(path, tree)


def _found(path: str, tree: ast.Module) -> list[Refusal]:
    tree = _imported_part(tree)
    world = _world(tree)
    found = [
        _refused("open resource", path, statement, f"{opened}(...) is kept open from the start of the service on",
                 "Open it inside a function, in a with block")
        for statement, opened in _opened(tree, world) if not opened.startswith(_CONNECT_LATE)
    ]  # fmt: skip
    for patch in _patches(tree, world):
        if not patch.inside and not patch.plain and not patch.of_environment:
            what = "modules" if patch.target == ANY_MODULE else patch.target
            reason = f"{patch.said} changes what {what} is for everybody"
            found.append(_refused("monkeypatch", path, patch, reason, "Use a function or a subclass of your own"))
    return found


def module_notes(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield what a person should know of a module that travels."""
    tree = _imported_part(tree)
    world = _world(tree)
    if _is_part(path):
        yield from (f"{refusal.reason}, once it is imported. {refusal.todo}." for refusal in _found(path, tree))
    for statement, opened in _opened(tree, world):
        if opened.startswith(_CONNECT_LATE):
            yield f"{path}, line {statement.lineno}: {opened}(...) is made when the service starts, once for all of its callers."
    for patch in _patches(tree, world):
        if patch.of_environment and not patch.inside:
            yield f"{path}, line {patch.line}: {patch.said} sets the environment of the whole service."
        elif patch.inside or patch.plain:
            what = "modules" if patch.target == ANY_MODULE else patch.target
            when = f", when {patch.inside} is called" if patch.inside else ""
            yield f"{path}, line {patch.line}: {patch.said} changes what {what} is for everybody in the service{when}."
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := world.name(node.func)) in _RUNS_CODE:
            yield f"{path}, line {node.lineno}: {name}() runs code in which imports, files and keys are not looked for."


def _is_part(path: str) -> bool:
    return "/" in path and not path.endswith("/__init__.py")


def _imported_part(tree: ast.Module) -> ast.Module:
    """Return a module without what only runs when it is a program of its own: `if __name__ == "__main__"`."""
    body = [
        node for node in tree.body if not (isinstance(node, ast.If) and {"__name__", "__main__"} <= set(_words(node.test)))
    ]  # fmt: skip
    return ast.Module(body=body, type_ignores=[])


def _words(test: ast.expr) -> Iterator[object]:
    yield from (n.id if isinstance(n, ast.Name) else n.value for n in ast.walk(test) if isinstance(n, ast.Name | ast.Constant))


def _world(tree: ast.Module) -> World:
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    imports = {one.bound: one.stands_for for node in nodes for one in imported(node)}
    own = frozenset(node.name for node in nodes if isinstance(node, Definition))
    return World(imports, own, frozenset())


def _opened(tree: ast.Module, world: World) -> Iterator[tuple[ast.stmt, str]]:
    for statement in (node for top in tree.body for node in executed_now(top) if isinstance(node, ast.stmt)):
        if opened := opened_by(statement, world):
            yield statement, opened


def _patches(tree: ast.Module, world: World) -> list[Patch]:
    return patches_in(tree, known_names([tree], world))


def _refused(kind: str, path: str, at: ast.stmt | Patch, reason: str, todo: str) -> Refusal:
    line = at.line if isinstance(at, Patch) else at.lineno
    return Refusal(kind=kind, reason=f"{path}, line {line}: {reason}", todo=todo)
