"""Which global names a statement binds and reads, now or later: a walk over its syntax tree with the scopes around each node."""

# ruff: noqa: N815 - ast finds a visitor by the name of its node

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager

from nbllm.export import scopes as sc
from nbllm.export.names import Statement, root_of


class NameReader(ast.NodeVisitor):
    """Walks one statement with the scopes around each node."""

    def __init__(self, node: ast.stmt, rebound: frozenset[str], *, lazy: bool) -> None:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        self.done = Statement(node, first)
        self.top = node
        self.scopes = [sc.Scope("module")]
        self.rebound = rebound
        self.lazy = lazy
        self.depth = 0  # how many function bodies around here
        self.generators = 0
        self.quiet = False  # reading here leaves no trace of the object
        self.hint = 0  # inside an annotation, where a text is code

    def reads_table(self, node: ast.AST) -> bool:
        """Whether going through an expression's value hands out nothing that can be changed, nor uses anything up."""
        raise NotImplementedError

    # ------------------------------------------------------------------ names

    @contextmanager
    def being(self, *, quiet: bool | None = None, later: int = 0, hint: int = 0) -> Iterator[None]:
        """Read a part in another mood: quiet leaves no trace of objects, later is a function's body, hint an annotation."""
        before = self.quiet, self.depth, self.hint
        self.quiet = self.quiet if quiet is None else quiet
        self.depth += later
        self.hint += hint
        try:
            yield
        finally:
            self.quiet, self.depth, self.hint = before

    def read_name(self, name: str, line: int, *, soft: bool = False) -> None:
        """Note a read of a global name; soft: it need not exist."""
        scope = self.scopes[-1]
        if scope.kind == "class" and name in scope.local:
            soft = True  # not bound yet, it is looked up in the module
        elif not sc.is_global(name, self.scopes):
            return
        done = self.done
        if soft and name not in done.now | done.later:
            done.soft.add(name)
        elif not soft:
            done.soft.discard(name)
        (done.later if self.depth else done.now).add(name)
        if self.generators:
            done.later.add(name)
            done.touched_later.add(name)
        if self.quiet:
            (done.looked_later if self.depth else done.looked).add(name)
        else:
            (done.touched_later if self.depth else done.touched).add(name)
        done.first_line.setdefault(name, line)

    def bind_name(self, name: str, *, walrus: bool = False) -> None:
        """Note that a global name is bound or deleted, when the statement runs or when a function in it does."""
        scopes = self.scopes
        if walrus:
            while scopes[-1].kind == "comprehension":
                scopes = scopes[:-1]
        if not sc.is_global(name, scopes) or (scopes[-1].kind == "class" and name not in scopes[-1].of_module):
            return
        if self.depth:
            self.done.bound_later.add(name)
            self.done.touched_later.add(name)
        else:
            self.done.binds.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        """Read, bind or delete."""
        if isinstance(node.ctx, ast.Load):
            self.read_name(node.id, node.lineno)
        elif node.id not in self.scopes[-1].local or self.scopes[-1].kind != "comprehension":
            self.bind_name(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        """Bind where walruses bind."""
        with self.being(quiet=False):
            self.visit(node.value)
        self.bind_name(node.target.id, walrus=True)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Bind the error's name, which is gone afterwards."""
        if node.name:
            self.bind_name(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        """Bind a capture."""
        if node.name:
            self.bind_name(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        """Bind a capture."""
        if node.name:
            self.bind_name(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        """Bind a capture."""
        if node.rest:
            self.bind_name(node.rest)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """Bind modules."""
        for name in sc.names_of_import(node):
            self.bind_name(name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Bind what is imported; a star may bind anything."""
        for name in sc.names_of_import(node):
            self.bind_name(name)

    # ------------------------------------------------------------------ scopes

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._decorated(node)
        for part in sc.evaluated_outside(node):
            if part not in node.decorator_list:
                with self.being(quiet=isinstance(part, ast.Name)):
                    self.visit(part)
        self._keep_defaults(node)
        self.bind_name(node.name)
        self._with_types(node)
        self.scopes.append(sc.function_scope(node))
        with self.being(quiet=False, later=1):
            for statement in node.body:
                self.visit(statement)
        self.scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def _decorated(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        """Note that decorators are called, and that a method of a name may take note of what it decorates."""
        for decorator in node.decorator_list:
            with self.being(quiet=False):
                self.visit(decorator)
            name, depth = root_of(decorator)
            if name is not None and depth and sc.is_global(name, self.scopes):
                self.done.signs_up.add(name)

    def _keep_defaults(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        """Note that calls may change the objects of defaults: a function keeps them, and hands them to itself."""
        for part in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)):
            names = {n.id for n in ast.walk(part) if isinstance(n, ast.Name) and sc.is_global(n.id, self.scopes)}
            self.done.touched_later |= names

    def _with_types(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Read annotations, in which the type parameters of Python 3.12 are known."""
        self.scopes.append(sc.Scope("function", {p.name for p in getattr(node, "type_params", ())}))
        for hint in sc.annotations_of(node):
            self.annotation(hint)
        self.scopes.pop()

    def annotation(self, hint: ast.expr) -> None:
        """Read an annotation: now, or later where annotations are not evaluated."""
        with self.being(quiet=True, later=1 if self.lazy else 0, hint=1):
            self.visit(hint)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Read defaults now and the body later."""
        for part in sc.evaluated_outside(node):
            self.visit(part)
        self._keep_defaults(node)
        self.scopes.append(sc.function_scope(node))
        with self.being(quiet=False, later=1):
            self.visit(node.body)
        self.scopes.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Read the body now, in a scope of its own."""
        self._decorated(node)
        for part in (*node.bases, *(keyword.value for keyword in node.keywords)):
            with self.being(quiet=False):
                self.visit(part)
            self.done.bases |= {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
        self.bind_name(node.name)
        self.scopes.append(sc.Scope("function", {p.name for p in getattr(node, "type_params", ())}))
        self.scopes.append(sc.body_scope("class", node.body))
        with self.being(quiet=False):
            for statement in node.body:
                self.visit(statement)
        del self.scopes[-2:]

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        lazy = isinstance(node, ast.GeneratorExp)
        with self.being(quiet=self.reads_table(node.generators[0].iter)):
            self.visit(node.generators[0].iter)
        self.scopes.append(sc.comprehension_scope(node.generators))
        self.generators += lazy
        for number, generator in enumerate(node.generators):
            if number:
                self.visit(generator.iter)
            self.visit(generator.target)
            for test in generator.ifs:
                self.visit(test)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.generators -= lazy
        self.scopes.pop()

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def visit_Constant(self, node: ast.Constant) -> None:
        """Read the names of an annotation that is written as a text."""
        if self.hint and isinstance(node.value, str):
            try:
                inner = ast.parse(node.value, mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return
            for name in (n for n in ast.walk(inner) if isinstance(n, ast.Name)):
                with self.being(quiet=True, later=1):
                    self.read_name(name.id, node.lineno, soft=True)
