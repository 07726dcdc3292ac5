"""Names of the module that a flow changes while it runs: in a service all callers share them, which a person has to know."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from nbllm.export import scopes as sc
from nbllm.export.book import Book, Unit
from nbllm.export.changeable import CHANGING, changed_by_methods
from nbllm.export.names import Definition, Statement, root_of
from nbllm.export.slicer import Choice


def state_notes(book: Book, choice: Choice, flow: str) -> Iterator[str]:
    """Yield a note for each name whose object the flow, or what it calls, changes in each run: the first place where it does."""
    kept = [(unit, s) for index, unit in enumerate(book.units) if index in choice.reasons for s in unit.statements]
    found: dict[str, tuple[Unit, int, str]] = {}
    methods = _changing_methods([s for _, s in kept])
    for unit, statement in _running(kept, flow):
        reader = _Reader(book.world.imports, book.effects.bound, methods)
        if statement.node is not None:
            reader.visit(statement.node)
        for name, line in reader.found:
            found.setdefault(name, (unit, line, _name_of(statement) or flow))
    for name, (unit, line, function) in sorted(found.items()):
        yield (
            f"Cell {unit.cell.number}, line {line}: {function} changes {name}, which all callers of the service share: what "
            "one caller's run leaves there is there for the next one's. If it belongs to a caller, make it a variable of the flow, "
            "or a parameter and a part of the result."
        )


def _running(kept: list[tuple[Unit, Statement]], flow: str) -> Iterator[tuple[Unit, Statement]]:
    """Yield the statements whose functions a run of the flow may call."""
    called = {flow}
    todo = list(kept)
    while found := [(unit, s) for unit, s in todo if s.binds & called]:
        todo = [one for one in todo if one not in found]
        for unit, statement in found:
            called |= statement.later | statement.now
            yield unit, statement


def _changing_methods(statements: list[Statement]) -> dict[str, set[str]]:
    """Return for each name that is bound to an object of the notebook's classes which methods of it change it."""
    classes = {s.node.name: changed_by_methods(s.node) for s in statements if isinstance(s.node, ast.ClassDef)}
    found: dict[str, set[str]] = {}
    for statement in statements:
        match statement.node:
            case ast.Assign(value=ast.Call(func=ast.Name(id=made))) | ast.AnnAssign(value=ast.Call(func=ast.Name(id=made))):
                for name in statement.binds if made in classes else ():
                    found.setdefault(name, set()).update(classes[made])
    return found


def _name_of(statement: Statement) -> str:
    node = statement.node
    return node.name if isinstance(node, Definition) else next(iter(sorted(statement.binds)), "")


class _Reader(ast.NodeVisitor):
    """Finds what functions certainly change of the module's names."""

    def __init__(self, imports: Mapping[str, str], bound: set[str], methods: Mapping[str, set[str]]) -> None:
        self._imports = imports
        self._bound = bound
        self._methods = methods
        self._scopes = [sc.Scope("module")]
        self.found: list[tuple[str, int]] = []

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self._scopes.append(sc.function_scope(node))
        for part in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self.visit(part)
        self._scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function  # noqa: N815 - ast finds a visitor by its node's name

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A class's body runs once; its methods run with the flow."""
        self._scopes.append(sc.body_scope("class", node.body))
        for part in node.body:
            self.visit(part)
        self._scopes.pop()

    def _note(self, name: str | None, line: int) -> None:
        running = any(scope.kind == "function" for scope in self._scopes)
        if name in self._bound and name not in self._imports and running and sc.is_global(name, self._scopes):
            self.found.append((name, line))

    def visit_Name(self, node: ast.Name) -> None:
        """What `global` says is bound for all."""
        if not isinstance(node.ctx, ast.Load) and any(node.id in scope.of_module for scope in self._scopes):
            self._note(node.id, node.lineno)

    def _part(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._note(root_of(node)[0], node.lineno)
        self.generic_visit(node)

    visit_Attribute = visit_Subscript = _part  # noqa: N815 - as above

    def visit_Call(self, node: ast.Call) -> None:
        """Methods that change their object: of containers by their names, of the notebook's classes by what they do."""
        if isinstance(node.func, ast.Attribute):
            name, depth = root_of(node.func)
            own = self._methods.get(name or "", set())
            direct = not any(isinstance(n, ast.Call) for n in ast.walk(node.func.value))
            if direct and (
                (name in self._methods and depth == 1 and node.func.attr in own) or self._is_change(node.func.attr, name)
            ):
                self._note(name, node.lineno)
        self.generic_visit(node)

    def _is_change(self, method: str, name: str | None) -> bool:
        return method in CHANGING - {"register", "write"} and name not in self._methods
