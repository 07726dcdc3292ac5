"""From the chosen cells to the pieces of a module: imports to the top where that changes nothing, answers as functions."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from nbllm.export.book import Book, Unit
from nbllm.export.file_uses import FileRead, file_uses
from nbllm.export.findings import kept_statements
from nbllm.export.imports import Imported, imported
from nbllm.export.llm_cells import function_text
from nbllm.export.names import Statement
from nbllm.export.patching import key_notes
from nbllm.export.refusals import Refusal
from nbllm.export.rewriting import with_calls, without
from nbllm.export.shared_defaults import default_notes
from nbllm.export.shared_state import state_notes
from nbllm.export.slicer import Choice, Kept, Slice
from nbllm.export.trying import tried_notes
from nbllm.redaction import redact

_TOLD = {"llm_config": "settings.toml", "llm_budget": "settings.toml", "nbllm_config": "settings.toml"}


def build(book: Book, choice: Choice, flow: str) -> tuple[Slice | None, list[Refusal]]:
    """Return the slice, or None and what is in the way of it."""
    builder = _Builder(book, choice, flow)
    kept = [piece for index, unit in enumerate(book.units) for piece in builder.pieces(index, unit)]
    if builder.refusals:
        return None, builder.refusals
    wanted = tuple(sorted(builder.hoisted))
    notes = (
        *_notes(book),
        *_folder_notes(book, choice),
        *default_notes(book, choice, flow),
        *state_notes(book, choice, flow),
        *tried_notes(book, choice.reasons.keys(), choice.wanted),
    )
    return Slice(flow, tuple(kept), wanted, builder.comments, notes, tuple(_files_used(book, choice))), []


class _Builder:
    """Makes the text of each cell; collects the imports that go to the top and what cannot be done."""

    def __init__(self, book: Book, choice: Choice, flow: str) -> None:
        self._choice = choice
        self._statements = list(kept_statements(book, choice))
        units = [book.units[index] for index in choice.reasons]
        self._answers = frozenset(u.llm.called for u in units if u.llm is not None and u.llm.out)
        self._bound = frozenset(name for _, s in self._statements for name in s.binds | s.bound_later)
        self._in_place = _staying(self._statements)
        self._is_async = any(isinstance(s.node, ast.AsyncFunctionDef) and s.node.name == flow for u in units for s in u.statements)
        taken = {
            n.id for u in units if u.code.tree is not None for n in ast.walk(u.code.tree) if isinstance(n, ast.Name)
        } | self._bound
        self.hoisted: set[Imported] = set()
        self.comments: dict[Imported, str] = {}
        self.refusals: list[Refusal] = []
        self._face: dict[str, str] = {}
        if self._answers:
            for role, wanted in (("nbllm", Imported("nbllm")), ("once", Imported("nbllm.flow_context", "once_in_a_flow"))):
                self._face[role] = self._named(wanted, taken)

    def _named(self, wanted: Imported, taken: set[str]) -> str:
        """Import something of ours under its own name, or, where the user has that name for something else, another."""
        name = wanted.bound
        others = [i for _, s in self._statements for i in imported(s.node) if i.bound == name]
        free = all(i.stands_for == wanted.stands_for for i in others) and not any(
            name in s.binds and not s.is_import for _, s in self._statements
        )
        free = (
            free
            and (bool(others) or name not in taken)
            and not any(id(s) in self._in_place and name in s.binds for _, s in self._statements)
        )
        while not free:
            name = f"_{name}"
            free = name not in taken
        self.hoisted.add(Imported(wanted.module, wanted.name, "" if name == wanted.bound else name))
        return name

    def pieces(self, index: int, unit: Unit) -> Iterator[Kept]:
        """Yield what a cell becomes: its code, a function, its imports, or nothing."""
        number = unit.cell.number
        if index not in self._choice.reasons:
            atoms = self._choice.atoms.get(index, [])
            text = self._only_imports(unit, set(atoms)) if atoms else ""
            if text:
                yield Kept(number, f"imports {', '.join(sorted(a.bound for a in atoms))}", text)
            return
        reason = self._choice.reasons[index]
        if unit.llm is not None:
            if unit.llm.out and not unit.llm.problem:
                yield Kept(
                    number, reason, function_text(unit.llm, number, defined=self._bound, answers=self._answers, face=self._face)
                )
        elif unit.code.tree is not None:
            text = self._code(unit)
            if text.strip():
                yield Kept(number, reason, text)

    def _only_imports(self, unit: Unit, atoms: set[Imported]) -> str:
        """Send the imports that are needed of a cell to the top; return those that have to stay."""
        staying: list[str] = []
        nodes = {s.node.lineno: s for s in unit.statements if s.node is not None and atoms & set(imported(s.node))}
        for statement in nodes.values():
            wanted = [one for one in imported(statement.node) if one in atoms]
            if id(statement) in self._in_place:
                staying += [_line(one) for one in wanted]
            else:
                self.hoisted |= set(wanted)
        cut = without(unit.code.python, [s.node for s in nodes.values() if s.node is not None])
        for line, comment in (cut[1] if cut else {}).items():
            wanted = [one for one in imported(nodes[line].node) if one in atoms] if line in nodes else []
            self._remember(wanted, comment)
        return "".join(staying)

    def _remember(self, atoms: list[Imported], comment: str) -> None:
        if atoms and redact(comment) == comment:
            self.comments.setdefault(atoms[0], comment)

    def _code(self, unit: Unit) -> str:
        """Return a cell's code without the imports that go to the top, answers called."""
        code = unit.code
        movable = {s.node.lineno: s for s in unit.statements if s.is_import and s.node is not None and id(s) not in self._in_place}
        dropped = {m.line for m in code.magics}
        magics = [n for n in code.body_nodes if isinstance(n, ast.Pass) and n.lineno in dropped]
        imports = [s.node for s in unit.statements if s.node is not None and s.is_import and id(s) not in self._in_place]
        cut = without(code.python, [*imports, *magics])
        if cut is None:
            text = code.python
        else:
            text, comments = cut
            self.hoisted |= {one for node in imports for one in imported(node)}
            for line, comment in comments.items():
                if line in movable:
                    self._remember(imported(movable[line].node), comment)
        return self._with_answers(unit, text.strip("\n") + "\n")

    def _with_answers(self, unit: Unit, text: str) -> str:
        if not self._answers:
            return text
        number = unit.cell.number
        used = {n.id: n.lineno for n in unit.code.nodes() if isinstance(n, ast.Name) and n.id in self._answers}
        if not used:
            return text
        called, _ = with_calls(text, self._answers)
        _, in_async = with_calls(unit.code.python, self._answers)
        if in_async or self._is_async:
            line = in_async[0] if in_async else next(iter(used.values()))
            self.refusals.append(Refusal(
                kind="async flow", cell=number, line=line, reason=f"an async flow uses {', '.join(sorted(used))}, which waits",
                todo="Ask with `await nbllm.aask(...)` in the flow, or make the flow a plain function"))  # fmt: skip
        if called is None:
            self.refusals.append(Refusal(
                kind="llm cell", cell=number, line=next(iter(used.values())),
                reason=f"its use of {', '.join(sorted(used))} cannot be turned into a call for certain",
                todo="Put it in a variable first, on a line of its own"))  # fmt: skip
        return called or text


def _line(one: Imported) -> str:
    renamed = f" as {one.asname}" if one.asname else ""
    dots = "." * one.level
    return f"from {dots}{one.module} import {one.name}{renamed}\n" if one.name else f"import {one.module}{renamed}\n"


def _staying(statements: list[tuple[Unit, Statement]]) -> set[int]:
    """Return the ids of imports that keep their place: their name is also bound otherwise, or what comes before prepares them.

    What prepares an import is a change to a module's state, such as os.environ or sys.path; the standard library does not mind.
    """
    meanings: dict[str, set[str]] = {}
    for _, statement in statements:
        atoms = imported(statement.node) if statement.is_import else []
        for one in atoms:
            meanings.setdefault(one.bound, set()).add(f"{one.level}{one.stands_for}")
        if not atoms:
            for name in statement.binds | statement.bound_later:
                meanings.setdefault(name, set()).add("")
    modules = {one.bound for _, s in statements if s.is_import for one in imported(s.node)}
    staying: set[int] = set()
    prepared = False
    for _, statement in statements:
        if statement.is_import:
            atoms = imported(statement.node)
            foreign = any(one.module.partition(".")[0] not in sys.stdlib_module_names for one in atoms)
            if any(len(meanings[one.bound]) > 1 for one in atoms) or (prepared and foreign):
                staying.add(id(statement))
        elif statement.stores & modules:
            prepared = True
    return {i for i in staying if not _is_future(i, statements)}


def _is_future(wanted: int, statements: list[tuple[Unit, Statement]]) -> bool:
    return any(id(s) == wanted and imported(s.node)[0].module == "__future__" for _, s in statements)


def _notes(book: Book) -> Iterator[str]:
    """Yield what the module does not hold and a person should know of: settings made in cells."""
    for unit in book.units:
        for magic in unit.code.magics:
            if magic.kind == "line" and magic.name in _TOLD:
                yield f"Cell {unit.cell.number}: {redact(magic.text)} is a setting; it belongs into {_TOLD[magic.name]}."
    yield from key_notes(book)


def _folder_notes(book: Book, choice: Choice) -> Iterator[str]:
    """Yield a note for each cell that changes the folder in which the notebook works, whether it goes along or not."""
    for index, unit in enumerate(book.units):
        how = ["%cd"] if any(magic.kind == "line" and magic.name == "cd" for magic in unit.code.magics) else []
        if unit.code.tree is not None and "chdir" in unit.cell.source:
            calls = (n for n in ast.walk(unit.code.tree) if isinstance(n, ast.Call))
            how += [name for call in calls if (name := book.world.name(call.func)) in {"os.chdir", "os.fchdir"}]
        if how:
            does = "so will the service" if index in choice.reasons else "the service does not"
            yield (
                f"Cell {unit.cell.number} changes the working folder ({how[0]}), {does}: "
                "it looks for files by their path from its own folder."
            )


def _files_used(book: Book, choice: Choice) -> list[FileRead]:
    kept = [unit for index, unit in enumerate(book.units) if index in choice.reasons]
    return file_uses([(unit.cell.number, unit.code.tree) for unit in kept if unit.code.tree is not None], book.world.name)
