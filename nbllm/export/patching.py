"""Monkeypatches of a notebook, refused: what they change is the same for everybody in a process.

A module of a service that holds one is not what its imports say, and one that lacks it does something else than the notebook did.
In cells that are kept each is refused, in others those that the flow could see. Everything errs on the side of more; the tag
no-export says that the flow has nothing to do with a cell.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator

from nbllm.export.book import Book, Unit
from nbllm.export.checks import World
from nbllm.export.imports import imported
from nbllm.export.names import Definition
from nbllm.export.patch_reader import ANY_MODULE, ENVIRONMENT, Known, Patch, Reader, patches_in
from nbllm.export.refusals import Refusal
from nbllm.export.requirements import needed_by
from nbllm.export.slicer import Choice

_OURS = {"nbllm", "builtins", ANY_MODULE}
_READ_ENVIRONMENT = {
    "os", "subprocess", "multiprocessing", "tempfile", "locale", "time", "datetime", "zoneinfo", "pathlib", "getpass", "ssl",
    "urllib", "http", "asyncio", "webbrowser", "shutil", "socket",
}  # fmt: skip
"""Modules of Python through which code sees variables of the environment."""
_LEAVE_OUT = "If the flow has nothing to do with it, tag its cell no-export"


def patch_refusals(book: Book, choice: Choice) -> list[Refusal]:
    """Refuse monkeypatches of kept cells, and those of other cells that the slice could see."""
    trees = [unit.code.tree for unit in book.units if unit.code.tree is not None]
    known = known_names(trees, book.world)
    tops = _tops(book, choice)
    called = frozenset(mentioned(trees))
    found: list[Refusal] = []
    for index, unit in enumerate(book.units):
        for patch in (*(patches_in(unit.code.tree, known) if unit.code.tree is not None else ()), *_of_magics(unit)):
            if patch.plain and unit.cell.exported:
                continue  # an option of a library, which the user wants to go along as it stands
            if index in choice.reasons:
                found += [] if patch.of_environment else [_refusal(unit, patch, "")]
            elif (not patch.inside or patch.inside in called) and (seen := _seen(patch, tops)):
                found.append(_refusal(unit, patch, seen))
    return found


def _of_magics(unit: Unit) -> Iterator[Patch]:
    """Yield what `%env NAME=value` sets; in a cell that is kept the magic itself is refused."""
    for magic in unit.code.magics:
        name = re.match(r"(\w+)\s*[= ]\s*\S", magic.rest.strip())
        if magic.kind == "line" and magic.name in {"env", "set_env"} and name is not None:
            yield Patch(ENVIRONMENT, magic.line, f"%{magic.name} {name[1]}", variable=name[1])


def key_notes(book: Book) -> Iterator[str]:
    """Yield a note for each key that a cell puts into the environment: a service is given it where it runs."""
    units = [unit for unit in book.units if unit.code.tree is not None and "env" in unit.cell.source]
    known = known_names([unit.code.tree for unit in units if unit.code.tree is not None], book.world) if units else None
    for unit in units:
        for patch in patches_in(unit.code.tree, known) if unit.code.tree is not None and known is not None else ():
            if patch.of_a_key:
                yield f"Cell {unit.cell.number} sets {patch.variable}: the service needs that variable where it runs."


def _refusal(unit: Unit, patch: Patch, seen: str) -> Refusal:
    if patch.of_environment:
        reason = f"{patch.said} sets the environment, which {seen} may read"
        todo = "Set it where the service runs and tag the cell no-export, or tag it export so that it goes along"
    else:
        what = "modules" if patch.target == ANY_MODULE else patch.target
        reason = f"{patch.said} changes what {what} is for everybody{f', {seen} too' if seen else ''}"
        todo = "Use a function or a subclass of your own"
        todo += ", or tag the cell export if it sets an option" if patch.plain else ""
        todo += f". {_LEAVE_OUT}" if seen else ""
    return Refusal(kind="monkeypatch", cell=unit.cell.number, line=patch.line, reason=reason, todo=todo)


def _tops(book: Book, choice: Choice) -> frozenset[str]:
    """Return the top names of the modules that the slice imports, at its start or when its functions run."""
    found = {one.module.partition(".")[0] for atoms in choice.atoms.values() for one in atoms}
    for index in choice.reasons:
        nodes = ast.walk(book.units[index].code.tree or ast.Module(body=[], type_ignores=[]))
        found |= {one.module.partition(".")[0] for node in nodes if isinstance(node, ast.stmt) for one in imported(node)}
    return frozenset(found)


def _seen(patch: Patch, tops: Collection[str]) -> str:
    """Return through what the slice could see a change that is made in a cell it does not need, "" when it cannot."""
    foreign = sorted(top for top in tops if top not in sys.stdlib_module_names and top != "nbllm")
    if patch.of_environment:
        if patch.of_a_key:
            return ""  # the export names it as a key that the service needs
        ours = patch.variable.startswith("NBLLM_") or patch.variable.upper().endswith("_PROXY")
        readers = [*foreign, *sorted(_READ_ENVIRONMENT & set(tops))]
        return "nbllm" if ours else readers[0] if readers else ""
    if patch.top in tops:
        return "the flow"
    if patch.top in sys.stdlib_module_names and patch.top not in _OURS:
        # All libraries are made of Python's own functions; a plain value is seen by who reads it.
        return foreign[0] if foreign else "" if patch.plain else "nbllm"
    if patch.top in _OURS:
        return "the flow"
    return next((top for top in foreign if patch.top in needed_by(top)), "nbllm" if patch.top in needed_by("nbllm") else "")


def known_names(trees: list[ast.Module], world: World) -> Known:
    """Return what imports and second names for what they bind stand for, and which names hold a patch that can be started."""
    names = dict(world.imports)
    statements = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    modules = {one.module for n in statements for one in imported(n) if not one.name} | {
        "os.path",
        "builtins",
        ANY_MODULE,
        *names.values(),
    }
    patchers: dict[str, str] = {}
    reader = Reader(Known(names, frozenset(modules), patchers, world.rebound))
    for _ in range(3):  # of a name of a name
        for node in statements:
            if isinstance(node, ast.Assign):
                for target in (t.id for t in node.targets if isinstance(t, ast.Name)):
                    _second_name(target, [reader.full(node.value)], names)
                    if patched := reader.patched_by(node.value):
                        patchers.setdefault(target, patched)
            elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and isinstance(node.iter, ast.Tuple | ast.List):
                _second_name(node.target.id, [reader.full(one) for one in node.iter.elts], names)
    return reader.known


def _second_name(name: str, found: list[str], names: dict[str, str]) -> None:
    full = sorted({one for one in found if one})
    if full:
        names.setdefault(name, full[0] if len(full) == 1 else ANY_MODULE)


def mentioned(trees: list[ast.Module]) -> Iterator[str]:
    """Yield the names that code reads outside of what defines them: functions among them may have been called."""
    for statement in (s for tree in trees for s in tree.body):
        own = statement.name if isinstance(statement, Definition) else ""
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != own:
                yield node.id
