"""Everything that is in the way of a slice: what single cells hold, and what the cells say against each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from nbllm.export import checks
from nbllm.export.answers import circles
from nbllm.export.book import Book, Unit
from nbllm.export.imports import imported
from nbllm.export.keys import key_refusals
from nbllm.export.names import ANYTHING, Statement
from nbllm.export.patching import patch_refusals
from nbllm.export.refusals import Refusal
from nbllm.export.slicer import BUILTINS, Choice
from nbllm.export.unreadable import not_python


def refusals_of(book: Book, choice: Choice, flow: str) -> list[Refusal]:
    """Return every reason why the slice cannot be exported."""
    found: list[Refusal] = []
    for index, unit in enumerate(book.units):
        if index in choice.reasons:
            found += _cell(unit, book)
        elif index in choice.atoms and unit.code.tree is not None:
            wanted = set(choice.atoms[index])
            nodes = [node for node in unit.code.tree.body if wanted & set(imported(node))]
            found += checks.code_refusals(unit.cell.number, ast.Module(body=nodes, type_ignores=[]), book.world)
    found += patch_refusals(book, choice)
    found += _undefined(book, choice)
    found += _order(book, choice, flow)
    found += _history(book, choice)
    found += _answers(book, choice)
    return found


def _cell(unit: Unit, book: Book) -> Iterator[Refusal]:
    number, code = unit.cell.number, unit.code
    if unit.cell.failed:
        yield Refusal(
            kind="failed cell", cell=number, reason="its last run ended with an error", todo="Make it run, and save the notebook"
        )
    if unit.llm is not None:
        if unit.llm.problem:
            yield Refusal(kind="llm cell", cell=number, line=1, reason=unit.llm.problem, todo="%%llm? is the manual")
        yield from key_refusals(number, code, code.body)
        return
    yield from checks.magic_refusals(number, code)
    yield from key_refusals(number, code, code.body)
    if code.tree is None:
        if code.cell_magic is None:
            yield not_python(unit)
        return
    yield from checks.code_refusals(number, code.tree, book.world)
    try:
        compile(code.python, f"<cell {number}>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        reason = f"it cannot stand in a module: {getattr(error, 'msg', None) or error!s:.80}"
        yield Refusal(kind="not module code", cell=number, line=line, reason=reason, todo="Move it into the flow")


def kept_statements(book: Book, choice: Choice) -> Iterator[tuple[Unit, Statement]]:
    """Yield the statements that run when the module is loaded, in order; imports taken from other cells included."""
    for index, unit in enumerate(book.units):
        atoms = set(choice.atoms.get(index, ()))
        for statement in unit.statements:
            if index in choice.reasons or (statement.is_import and atoms & set(imported(statement.node))):
                yield unit, statement


def _undefined(book: Book, choice: Choice) -> list[Refusal]:
    """Names that no cell produces: state of a session that was never written down, or a cell that is gone."""
    if any(ANYTHING in s.binds for _, s in kept_statements(book, choice)):
        return []
    found: list[Refusal] = []
    seen: set[str] = set()
    for unit, statement in kept_statements(book, choice):
        if statement.is_import:
            continue
        for name in sorted(statement.needs - book.effects.bound - BUILTINS - seen):
            if checks.is_notebooks(name) or name == "display":
                continue
            seen.add(name)
            found.append(
                Refusal(kind="undefined", cell=unit.cell.number, line=statement.first_line.get(name, statement.line),
                        reason=f"it uses {name}, and no cell produces it", todo=_where(book, name))
            )  # fmt: skip
    return found


def _where(book: Book, name: str) -> str:
    for unit in book.left_out:
        if name in unit.binds:
            return f"Cell {unit.cell.number} does, and is tagged no-export"
    odd = [u.cell.number for u in book.units if u.code.tree is None and not (u.llm is not None and u.llm.out)]
    blind = f" (cell {odd[0]} is no Python, so it does not count)" if odd else ""
    return f"Write a cell that defines it{blind}"


def _order(book: Book, choice: Choice, flow: str) -> list[Refusal]:
    """Names that are used before they are there, or deleted in the end."""
    found: list[Refusal] = []
    there = set(BUILTINS)
    gone: dict[str, Unit] = {}
    later = {name for _, s in kept_statements(book, choice) for name in s.bound_later}
    bound = {name: unit for unit in book.units for name in unit.binds}
    if any(ANYTHING in s.binds for _, s in kept_statements(book, choice)):
        return found
    hoisted = {name for _, s in kept_statements(book, choice) if s.is_import for name in s.binds}
    for unit, statement in kept_statements(book, choice):
        for name in sorted(statement.now - statement.soft - there - later - hoisted - statement.binds):
            if name in bound and not statement.is_import:
                there.add(name)
                found.append(Refusal(
                    kind="order", cell=unit.cell.number, line=statement.first_line.get(name, statement.line),
                    reason=f"it uses {name}, which cell {bound[name].cell.number} defines later",
                    todo="Move that cell up"))  # fmt: skip
        there |= statement.binds - statement.deletes
        there -= statement.deletes
        gone = {n: u for n, u in {**gone, **dict.fromkeys(statement.deletes, unit)}.items() if n not in there}
    found += [
        Refusal(
            kind="undefined", cell=gone[name].cell.number, reason=f"it deletes {name}, which {flow} needs", todo="Take the del out"
        )
        for name in sorted(choice.wanted & gone.keys())
    ]
    return found


def _history(book: Book, choice: Choice) -> list[Refusal]:
    """Names that are defined twice, in an order in the document that is not the one in which the cells ran."""
    if book.live:
        return []
    needed = {name for _, s in kept_statements(book, choice) for name in s.binds}
    by_name: dict[str, list[Unit]] = {}
    for unit in book.units:
        for name in unit.binds & needed:
            if unit.cell.executed is not None:
                by_name.setdefault(name, []).append(unit)
    found = []
    for name, units in sorted(by_name.items()):
        last_run = max(units, key=lambda u: u.cell.executed or 0)
        last = units[-1]
        if last_run is not last and last_run.cell.source != last.cell.source and not _same_import(name, last_run, last):
            found.append(Refusal(
                kind="history", cell=last.cell.number,
                reason=f"it defines {name} below cell {last_run.cell.number}, which also does and ran after it",
                todo="Run the notebook from top to bottom, or rename one of them"))  # fmt: skip
    return found


def _same_import(name: str, one: Unit, other: Unit) -> bool:
    """Whether two cells bind a name by imports only, and to the same thing."""

    def meanings(unit: Unit) -> set[str]:
        binding = [s for s in unit.statements if name in s.binds]
        if not all(s.is_import for s in binding):
            return set()
        return {f"{i.level}{i.stands_for}" for s in binding for i in imported(s.node) if i.bound == name}

    return bool(meanings(one)) and meanings(one) == meanings(other)


def _answers(book: Book, choice: Choice) -> Iterator[Refusal]:
    """What is wrong with the use of answers of %%llm cells."""
    asking = [(i, u, u.llm) for i, u in enumerate(book.units) if i in choice.reasons and u.llm is not None and u.llm.out]
    asked = {llm.out: unit for _, unit, llm in asking}
    for unit, statement in kept_statements(book, choice):
        for name in sorted(statement.now & asked.keys()):
            yield Refusal(
                kind="buys at start",
                cell=unit.cell.number,
                line=statement.first_line.get(name, statement.line),
                reason=f"it uses the answer {name}, which would be asked for each time when the service starts",
                todo="Move it into the flow",
            )
        if unit.llm is not None and unit.llm.function:  # it has a function of its own
            continue
        for name in sorted((statement.binds | statement.bound_later) & asked.keys()):
            if unit is not asked[name]:
                yield Refusal(
                    kind="llm cell",
                    cell=unit.cell.number,
                    line=statement.line,
                    reason=f"it sets {name}, which the %%llm cell {asked[name].cell.number} sets too",
                    todo="Rename one of them",
                )
    yield from circles([unit for _, unit, _ in asking])
    for index, unit, llm in asking:
        yield from _changed_after(book, choice, llm.out, index, unit)


def _changed_after(book: Book, choice: Choice, name: str, index: int, asking: Unit) -> Iterator[Refusal]:
    """A template's value that changes below its %%llm cell: the notebook asked with the old one, a service would with the new."""
    reads = {n for s in asking.statements for n in s.later}
    for later, unit in enumerate(book.units):
        if later <= index or later not in choice.reasons:
            continue
        for statement in unit.statements:
            hit = sorted((statement.binds & reads) | book.effects.may_change(statement, reads))
            if hit and not (statement.is_import or (unit.llm is not None and unit.llm.out not in reads)):
                yield Refusal(kind="changed after", cell=unit.cell.number, line=statement.line,
                              reason=f"it changes {hit[0]}, with which cell {asking.cell.number} asked for {name} before",
                              todo="Use another name for the new value")  # fmt: skip
