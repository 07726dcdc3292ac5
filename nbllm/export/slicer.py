"""The backward slice: from a flow to the cells that it needs, in the order in which they stand (or ran).

Cells are gone through from the last to the first with the set of names that are needed there. A cell is kept when it may bind
one of them, or may change the object of one; what it reads is needed from there on. What functions read when they are called
is needed at the end, where the flow is called, and wherever a kept cell calls them. Imports are taken one name at a time.
"""

from __future__ import annotations

import builtins
import keyword
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from nbllm.export.book import Book, Unit, read_book
from nbllm.export.cells import Cell
from nbllm.export.file_uses import FileRead
from nbllm.export.imports import Imported, imported
from nbllm.export.names import ANYTHING
from nbllm.export.refusals import ExportRefused, Refusal
from nbllm.export.trying import tries_out
from nbllm.export.unreadable import hiding
from nbllm.settings.suggest import did_you_mean

BUILTINS = frozenset(dir(builtins)) - {"display", "get_ipython"} | {"__file__", "__annotations__", "__builtins__"}


@dataclass(frozen=True, slots=True)
class Kept:
    """One cell of the slice: its number, why it is kept, and its text as it stands in the module, imports taken out."""

    number: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Slice:
    """What a flow needs. imports: those at the top, comments: the remarks behind them. notes: what a person should know.

    files: those that the kept cells read or write, as far as their paths can be seen.
    """

    flow: str
    kept: tuple[Kept, ...]
    imports: tuple[Imported, ...]
    comments: dict[Imported, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[FileRead, ...] = ()


@dataclass(slots=True)
class Choice:
    """Which units are kept, by index, and why; which imports are taken. wanted: names that must be there in the end."""

    reasons: dict[int, str]
    atoms: dict[int, list[Imported]]
    wanted: set[str]


def slice_notebook(cells: Sequence[Cell], flow: str = "flow") -> Slice:
    """Return what the flow of that name needs of the cells.

    cells: in document order, or those of a session's history (`history_cells`). Raises ExportRefused with every reason at once.
    """
    from nbllm.export.building import build
    from nbllm.export.findings import refusals_of

    flow = flow_name(flow)
    book = read_book(cells)
    found = _flow_refusals(book, flow)
    if found:
        raise ExportRefused(flow, found)
    choice = choose(book, flow)
    found = refusals_of(book, choice, flow)
    result, more = build(book, choice, flow)
    if found or more or result is None:
        raise ExportRefused(flow, [*found, *more], partial=result)
    return result


def flow_name(flow: str) -> str:
    """Return a flow's name as Python knows it. Raises ExportRefused for what cannot be the name of a function."""
    name = unicodedata.normalize("NFKC", flow) if isinstance(flow, str) else ""
    if name.isidentifier() and not keyword.iskeyword(name):
        return name
    what = "is a keyword of Python" if keyword.iskeyword(name) else "is no name of a function"
    raise ExportRefused(str(flow), [Refusal(kind="bad flow name", reason=f"{str(flow)!r:.80} {what}",
                                            todo="Give the name of a function that is marked with @flow")])  # fmt: skip


def _flow_refusals(book: Book, flow: str) -> list[Refusal]:
    if flow not in book.flows:
        cell = next((u for u in reversed(book.units) if flow in u.binds), None)
        if cell is not None:
            return [Refusal(kind="not a flow", cell=cell.cell.number, reason=f"{flow} is not marked as a flow",
                            todo="Write @flow above its def (from nbllm import flow)")]  # fmt: skip
        if unread := hiding(book, flow):
            return list(unread)
        if any(flow in u.binds for u in book.left_out):
            return [Refusal(kind="no such flow", reason=f"the cell of {flow} is tagged no-export", todo="Take the tag off")]
        todo = did_you_mean(flow, book.flows) or "Mark a function with @flow (from nbllm import flow)"
        return [Refusal(kind="no such flow", reason=f"there is no flow {flow!r}", todo=todo)]
    sources = {unit.cell.source: unit.cell.number for unit in book.flows[flow]}
    if len(sources) > 1 and not book.live:
        numbers = sorted(sources.values())
        return [Refusal(kind="two flows", cell=numbers[-1], reason=f"{flow} is also defined in cell {numbers[0]}",
                        todo="Rename one, or tag one no-export")]  # fmt: skip
    return []


def choose(book: Book, flow: str) -> Choice:
    """Return what is kept. Names that kept functions read are wanted at the end, so this goes round until nothing is added."""
    wanted = {flow}
    while True:
        choice = _backward(book, wanted, flow)
        later = {n for index in choice.reasons for s in book.units[index].statements for n in s.later | s.bound_later}
        if later <= wanted:
            return choice
        wanted = wanted | later


def _backward(book: Book, wanted: set[str], flow: str) -> Choice:
    live = book.effects.with_modules(wanted)
    choice = Choice({}, {}, wanted)
    for index in range(len(book.units) - 1, -1, -1):
        unit = book.units[index]
        reason = _reason(book, unit, live, flow)
        for statement in reversed(unit.statements):
            atoms = imported(statement.node) if statement.is_import else []
            if reason:
                live = book.effects.with_modules((live - statement.kills) | book.effects.read_by(statement))
                choice.atoms.setdefault(index, []).extend(atoms)
                continue
            for atom in reversed(atoms):
                if atom.bound in live or _changes_meaning(atom):
                    choice.atoms.setdefault(index, []).append(atom)
                    live -= {atom.bound} & statement.kills
        if reason:
            choice.reasons[index] = reason
    return choice


def _changes_meaning(atom: Imported) -> bool:
    """Whether an import says how all code is to be read."""
    return atom.module == "__future__"


def _reason(book: Book, unit: Unit, live: set[str], flow: str) -> str:
    """Return why a cell is kept, "" when it is not: a trial run through its statements, backwards, imports left aside."""
    bound: set[str] = set()
    changed: set[str] = set()
    anything = False
    live = set(live)
    for statement in reversed(unit.statements):
        if statement.is_import:
            live -= statement.kills
            continue
        binds = statement.binds & live
        changes = book.effects.may_change(statement, live)
        anything |= ANYTHING in statement.binds or ANYTHING in book.effects.changed_by(statement)
        if changes and not binds and tries_out(statement, changes, book):
            continue
        if binds or changes or ANYTHING in statement.binds:
            bound |= binds
            changed |= changes
            live = book.effects.with_modules((live - statement.kills) | book.effects.read_by(statement))
    if flow in bound:
        return f"defines the flow {flow}"
    if unit.llm is not None and bound:
        return f"asks for {unit.llm.out}"
    if anything:
        return "may define or change anything"
    if bound:
        return f"defines {', '.join(sorted(bound))}"
    if changed:
        return f"may change {', '.join(sorted(changed)).replace('module ', '')}"
    return "is marked for export" if unit.cell.exported else ""
