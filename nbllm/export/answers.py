"""Answers of %%llm cells that share a variable: each cell's is a function of its own, and who reads it calls the one it had then.

A cell that refines its own answer (`%%llm -o draft` over `{{ draft.text }}`) reads the answer of the cell before it. As a function
of that name it would call itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nbllm.export.refusals import Refusal

if TYPE_CHECKING:
    from nbllm.export.book import Unit


def tell_apart(units: Sequence[Unit], taken: Collection[str]) -> None:
    """Give every %%llm cell's answer that a later one replaces, and that is read before, a function of its own.

    units: in the order in which they stand or ran; their `llm` is changed in place. taken: names that no function may have.
    """
    last = {unit.llm.out: index for index, unit in enumerate(units) if unit.llm is not None and unit.llm.out}
    binder: dict[str, int] = {}
    functions: dict[int, str] = {}
    for index, unit in enumerate(units):
        if unit.llm is not None:
            earlier: dict[str, str] = {}
            for name in sorted(unit.llm.names & last.keys()):
                source = binder.get(name)
                asked = None if source is None else units[source].llm
                if source is None or asked is None or last[name] == source:
                    continue
                earlier[name] = functions.setdefault(source, _free(f"{name}_of_cell_{units[source].cell.number}", taken))
            unit.llm = replace(unit.llm, earlier=earlier)
        for name in unit.binds:
            if not (unit.llm is not None and unit.cell.live and unit.cell.failed):  # it left the answer that was there
                binder[name] = index
    for index, function in functions.items():
        asked = units[index].llm
        assert asked is not None  # noqa: S101 - only those have functions
        units[index].llm = replace(asked, function=function)


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"{name}_"
    return name


def circles(asking: Sequence[Unit]) -> Iterator[Refusal]:
    """Yield the %%llm cells whose answer is needed to ask for it: a function that calls itself, alone or through others.

    asking: those that are kept.
    """
    cells = {unit.llm.called: unit for unit in asking if unit.llm is not None}
    needs = {name: {_meant(unit, one) for one in _taken(unit)} & cells.keys() for name, unit in cells.items()}
    for name, unit in cells.items():
        for one in sorted(_taken(unit)):
            meant = _meant(unit, one)
            if meant == name:
                why = f"it asks for {one} with {one} itself, and no %%llm cell before it asked for that"
            elif meant in cells and name in _reached(meant, needs):
                why = f"it asks for {name} with {one}, for which cell {cells[meant].cell.number} asks with {name}"
            else:
                continue
            todo = "Give its answer another name (-o), or write a %%llm cell above it that asks for the first one"
            yield Refusal(kind="llm cell", cell=unit.cell.number, line=_line_of(unit, one), reason=why, todo=todo)
        yield from _own_tool(unit)


def _own_tool(unit: Unit) -> Iterator[Refusal]:
    for flag, name in sorted(unit.llm.code.items()) if unit.llm is not None else ():
        if unit.llm is not None and name.partition(".")[0] == unit.llm.out:
            why = f"its answer has the name of its --{flag} {name}"
            todo = "Give its answer another name (-o)"
            yield Refusal(kind="llm cell", cell=unit.cell.number, line=_line_of(unit, ""), reason=why, todo=todo)


def _taken(unit: Unit) -> frozenset[str]:
    return frozenset() if unit.llm is None else unit.llm.names


def _meant(unit: Unit, name: str) -> str:
    return name if unit.llm is None else unit.llm.earlier.get(name, name)


def _reached(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [name]
    while todo:
        for one in needs[todo.pop()] - seen:
            seen.add(one)
            todo.append(one)
    return seen


def _line_of(unit: Unit, name: str) -> int:
    """Return the line of the cell's body on which a name stands, else that of the magic."""
    magic = unit.code.cell_magic
    first = magic.line if magic is not None else 1
    tag = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)") if name else None
    for number, line in enumerate(unit.code.body.split("\n"), first + 1):
        if tag is not None and ("{{" in line or "{%" in line) and tag.search(line):
            return number
    return first
