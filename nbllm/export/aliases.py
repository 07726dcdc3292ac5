"""Which statements change a class or a function, whatever they call it, and what each name may be or hold of them."""

# ruff: noqa: N815 - ast finds a visitor by the name of its node

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from nbllm.export.changeable import CHANGING, is_container
from nbllm.export.names import Statement
from nbllm.export.pointing import Evaluator
from nbllm.export.things import ATTRIBUTES, RESULT, Memory, Thing, Value, is_method_of_class, is_static, parameters

_MOST_PASSES = 100
"""Far more than any notebook needs: each pass follows one more step of a chain of names."""


class Aliases:
    """What is known of the statements of a notebook together.

    changes, changes_later: for each statement the definitions of which it sets attributes when it runs and when functions in it
    run. filled: definitions that are given a container so.
    """

    def __init__(self, statements: Sequence[Statement], imports: Mapping[str, str]) -> None:
        self._memory = Memory(imports)
        walker = _Walker(self._memory)
        for _ in range(_MOST_PASSES):
            self._memory.grew = False
            walker.called.clear()
            for statement in statements:
                walker.read(statement)
            if not self._memory.grew:
                break
        self.changes: list[frozenset[str]] = []
        self.changes_later: list[frozenset[str]] = []
        self.filled: set[str] = set()
        finder = _Changes(self._memory)
        for statement in statements:
            finder.now, finder.later = set(), set()
            finder.read(statement)
            self.changes.append(frozenset(finder.now))
            self.changes_later.append(frozenset(finder.later))
        self.filled = finder.filled
        self._reach: dict[str, frozenset[Thing]] = {}

    def owners(self, name: str) -> frozenset[str]:
        """Return the definitions that a name may be, hold, be made of or inherit from."""
        return frozenset(one.owner for one in self.reach(name) if one.kind != "module")

    def modules(self, name: str) -> frozenset[str]:
        """Return the modules (their top names) that a name may be or hold, or that may have made what it holds."""
        return frozenset(one.owner for one in self.reach(name) if one.kind == "module")

    def reach(self, name: str) -> frozenset[Thing]:
        """Return everything that can be got at from a name."""
        if name not in self._reach:
            found: set[Thing] = set()
            start = self._memory.value((None, name)).all
            if name in self._memory.imports:
                start |= {Thing("module", self._memory.imports[name].partition(".")[0])}
            todo = list(start)
            while todo:
                one = todo.pop()
                if one in found:
                    continue
                found.add(one)
                if one.kind != "module":
                    todo += [*self._memory.lineage(one.node), *self._memory.value((one.node, ATTRIBUTES)).all]
                    around = self._memory.around.get(one.node, ()) if one.node is not None else ()
                    todo += [t for node in around for t in self._locals(node)]
            self._reach[name] = frozenset(found)
        return self._reach[name]

    def _locals(self, node: ast.AST) -> Iterator[Thing]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for name in self._memory.locals.get(node, ()):
                yield from self._memory.value((node, name)).all


class _Walker(Evaluator, ast.NodeVisitor):
    """Goes through statements, binding what they bind."""

    def read(self, statement: Statement) -> None:
        """Go through one statement of the notebook."""
        self.scopes, self.owner = self.scopes[:1], ""
        if statement.node is not None:
            with suppress(RecursionError):  # nested so deeply that it is refused as that
                self.visit(statement.node)

    def generic_visit(self, node: ast.AST) -> None:
        """Evaluate expressions, go into statements."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child)
            else:
                self.visit(child)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        owner = self.owner or node.name
        found = Value(frozenset({self.define(node, owner)}))
        self.defaults(node)
        for decorator in reversed(node.decorator_list):
            found |= self.decorated(decorator, found)
        self.memory.add(self.slot(node.name), found)
        self._in(node, owner, node.body)

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def _in(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, owner: str, body: Iterable[ast.stmt]) -> None:
        before, self.owner = self.owner, owner
        self.scopes.append((self.scope(node), node))
        for statement in body:
            self.visit(statement)
        self.scopes.pop()
        self.owner = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Bind the class; its methods are given its objects."""
        owner = self.owner or node.name
        own = self.define(node, owner)
        for base in (*node.bases, *(k.value for k in node.keywords)):
            self.memory.bases[node] |= {t for t in self.value(base).all if isinstance(t.node, ast.ClassDef)}
            if ast.unparse(base).endswith(("Enum", "Flag")) or any(t.node in self.memory.enums for t in self.memory.bases[node]):
                self.memory.enums.add(node)
        found = Value(frozenset({own}))
        for decorator in reversed(node.decorator_list):
            found |= self.decorated(decorator, found)
        self.memory.add(self.slot(node.name), found)
        for method in (m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)):
            self.memory.methods[method.name].add((own, method))
            names = parameters(method)
            if names and not is_static(method):
                made = own if is_method_of_class(method) or node in self.memory.enums else Thing("object", owner, node)
                self.memory.add((method, names[0]), Value(frozenset({made})))
        self._in(node, owner, node.body)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Bind the targets; a lambda is known by its name."""
        before = self.owner
        first = node.targets[0]
        if not self.owner and isinstance(first, ast.Name):
            self.owner = first.id
        found = self.value(node.value)
        self.owner = before
        for target in node.targets:
            self.bind(target, found)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Bind the target."""
        if node.value is not None:
            self.bind(node.target, self.value(node.value))

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """What it adds is held from here on."""
        self.bind(node.target, self.value(node.value))

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        self.bind(node.target, self.item_of(self.value(node.iter)))
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    visit_For = visit_AsyncFor = _loop

    def visit_withitem(self, node: ast.withitem) -> None:
        """Bind what a with block is given."""
        found = self.value(node.context_expr)
        methods = [m for name in ("__enter__", "__aenter__") for _, m in self.memory.methods_of(found.itself, name)]
        entered = [self.memory.value((method, RESULT)) for method in methods]
        if node.optional_vars is not None:
            for one in (found, *entered):
                self.bind(node.optional_vars, Value(one.all, one.held))

    def visit_Return(self, node: ast.Return) -> None:
        """Remember what the function gives."""
        self.give(self.value(node.value))

    def visit_Match(self, node: ast.Match) -> None:
        """Captures may be anything of what is matched."""
        found = self.value(node.subject)
        for case in node.cases:
            for pattern in ast.walk(case.pattern):
                name = pattern.rest if isinstance(pattern, ast.MatchMapping) else getattr(pattern, "name", None)
                if name:
                    self.memory.add(self.slot(name), Value(found.all, found.held))
            self.value(case.guard)
            for statement in case.body:
                self.visit(statement)


class _Changes(_Walker):
    """Finds the stores once everything is known."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.now: set[str] = set()
        self.later: set[str] = set()
        self.filled: set[str] = set()

    def visit(self, node: ast.AST) -> None:
        """Look at a statement's own stores, then go into it."""
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._stored(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.AugAssign(target=target, value=value):
                self._stored(target, value)
            case ast.For(target=target) | ast.AsyncFor(target=target) | ast.withitem(optional_vars=ast.expr() as target):
                self._stored(target, None)
            case ast.Delete(targets=targets):
                for target in targets:
                    self._stored(target, None)
        super().visit(node)

    def _call(self, node: ast.Call) -> Value:
        match node.func:
            case ast.Name(id="setattr" | "delattr") if node.args:
                self._change(node.args[0], node.args[2] if len(node.args) > 2 else None)
            case ast.Attribute(value=inner, attr=method) if method in CHANGING or method in self.memory.methods:
                self._parts(inner)
            case ast.Attribute(value=inner, attr="__setattr__" | "__delattr__"):
                self._change(inner, None)
        return super()._call(node)

    def _stored(self, target: ast.AST, value: ast.expr | None) -> None:
        match target:
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self._stored(part, None)
            case ast.Starred(value=inner):
                self._stored(inner, None)
            case ast.Attribute(value=inner):
                self._change(inner, value)
                self._parts(inner)
            case ast.Subscript(value=inner):
                self._parts(inner)

    def _parts(self, node: ast.AST) -> None:
        """Note whose attributes hold what is changed: `X.items[0].append(...)`."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
            if isinstance(node, ast.Attribute):
                self._change(node.value, None)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vars" and node.args:
                self._change(node.args[0], None)
            node = node.func if isinstance(node, ast.Call) else node.value

    def _change(self, of: ast.AST, value: ast.expr | None) -> None:
        owners = {one.owner for one in self.value(of).itself if one.kind == "definition" and one.owner}
        inside = any(scope.kind == "function" for scope, _ in self.scopes)
        (self.later if inside else self.now).update(owners)
        if value is not None and is_container(value):
            self.filled |= owners
