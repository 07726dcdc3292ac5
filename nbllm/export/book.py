"""The notebook read once: what each cell holds and does, and what follows for names that may be anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nbllm.core.templates import required_names_in
from nbllm.errors import TemplateError
from nbllm.export.answers import tell_apart
from nbllm.export.answers_kept import collected
from nbllm.export.cells import Cell
from nbllm.export.checks import World, buying_names
from nbllm.export.effects import Effects
from nbllm.export.imports import Imported, full_name, imported
from nbllm.export.lexer import Code, read_code
from nbllm.export.llm_cells import MAGICS, LlmCell, read_llm_cell
from nbllm.export.names import Statement, bound_anywhere
from nbllm.export.tables import constant_tables
from nbllm.export.touching import statements_of


@dataclass(slots=True)
class Unit:
    """One cell taken apart. llm: what it asks, when it is a %%llm cell."""

    cell: Cell
    code: Code
    statements: list[Statement] = field(default_factory=list)
    llm: LlmCell | None = None

    @property
    def binds(self) -> set[str]:
        """The names that the cell may bind."""
        return {name for s in self.statements for name in s.binds}


@dataclass(frozen=True, slots=True)
class Book:
    """The code cells that count, in order, and what is known of them together.

    left_out: cells that the user tagged no-export. flows: name -> the cells that define a flow of that name.
    collected: names that hold what was asked outside of flows.
    """

    units: tuple[Unit, ...]
    left_out: tuple[Unit, ...]
    effects: Effects
    world: World
    flows: dict[str, list[Unit]]
    collected: frozenset[str] = frozenset()

    @property
    def live(self) -> bool:
        """Whether the cells are a session's history, in the order in which they ran."""
        return any(unit.cell.live for unit in self.units)


def read_book(cells: Sequence[Cell]) -> Book:
    """Read every code cell. Nothing is refused here."""
    every = [(cell, read_code(cell.source)) for cell in cells if cell.kind == "code"]
    trees = [code.tree for cell, code in every if code.tree is not None and not cell.left_out]
    rebound = frozenset(name for tree in trees for name in bound_anywhere(tree))
    lazy = any(one.module == "__future__" and one.name == "annotations" for tree in trees for s in tree.body for one in imported(s))
    imports = {one.bound: one.stands_for for tree in trees for one in _imports(tree)}
    tables = constant_tables(trees)
    read = [_unit(cell, code, rebound, imports, lazy=lazy, tables=tables) for cell, code in every]
    units = tuple(unit for unit in read if not unit.cell.left_out)
    tell_apart(units, rebound.union(imports, *(unit.binds for unit in units)))
    for unit in units:
        if unit.llm is not None and unit.llm.out:
            unit.statements = [_answer(unit.llm, unit.code)]
    flows: dict[str, list[Unit]] = {}
    for unit in units:
        for name in _flows(unit, imports):
            flows.setdefault(name, []).append(unit)
    world = World(imports, rebound, buying_names(trees, imports) | _answers(units) | flows.keys())
    left_out = tuple(unit for unit in read if unit.cell.left_out)
    effects = Effects([s for unit in units for s in unit.statements], tried=flows, imports=imports)
    return Book(units, left_out, effects, world, flows, collected([s for unit in units for s in unit.statements], world))


def _unit(cell: Cell, code: Code, rebound: frozenset[str], imports: dict[str, str], *, lazy: bool, tables: frozenset[str]) -> Unit:
    unit = Unit(cell, code)
    if code.tree is not None:
        try:
            unit.statements = statements_of(code.tree, rebound=rebound, imports=imports, lazy_annotations=lazy, tables=tables)
        except RecursionError:
            unit.code = Code(code.python, None, code.magics, code.cell_magic, problem="it is nested too deeply")
    elif code.cell_magic is not None and code.cell_magic.name in MAGICS:
        unit.llm = read_llm_cell(code.cell_magic, code.body)
        if unit.llm.out:
            unit.statements = [_answer(unit.llm, code)]
    for magic in code.magics:
        if magic.binds:
            unit.statements.append(Statement(None, magic.line, binds=set(magic.binds), kills=set(magic.binds)))
    return unit


def _answer(llm: LlmCell, code: Code) -> Statement:
    line = code.cell_magic.line if code.cell_magic else 1
    required = {name.partition(".")[0] for name in llm.code.values()}
    if not llm.raw:
        try:
            required |= required_names_in(llm.prompt) | required_names_in(llm.options.get("system") or "")
        except TemplateError:  # it was read before: it cannot be
            required |= llm.names
    required = {llm.earlier.get(name, name) for name in required}
    reads = set(llm.reads)
    found = {llm.out, llm.called}
    lines = dict.fromkeys(reads, line)
    return Statement(
        None,
        line,
        binds=found,
        kills=found,
        settled=found,
        later=reads,
        soft=reads - required,
        first_line=lines,
    )


def _imports(tree: ast.Module) -> Iterator[Imported]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (one for one in imported(node) if one.name != "*")


def _answers(units: Sequence[Unit]) -> frozenset[str]:
    return frozenset(unit.llm.out for unit in units if unit.llm is not None and unit.llm.out)


def _flows(unit: Unit, imports: dict[str, str]) -> Iterator[str]:
    """Yield the names that a cell marks as flows: `@flow def f`, or `f = flow(g)`."""
    for statement in unit.code.tree.body if unit.code.tree is not None else ():
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if any(full_name(decorator, imports) in {"nbllm.flow", "flow"} for decorator in statement.decorator_list):
                    yield statement.name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function)):
                if full_name(function, imports) == "nbllm.flow":
                    yield name
