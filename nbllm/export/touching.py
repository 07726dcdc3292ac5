"""What a statement may change: calls, stores and other names for an object, on top of the names that it binds and reads."""

# ruff: noqa: N802, N815 - ast finds a visitor by the name of its node

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Mapping

from nbllm.export import scopes as sc
from nbllm.export.changeable import keeps_state
from nbllm.export.imports import full_name
from nbllm.export.names import (
    ANYTHING,
    LOOKING,
    LOOKING_CALLS,
    LOOKING_METHODS,
    SETS_UP,
    SHOWING,
    Statement,
    is_plain,
    root_of,
    sets_up_module,
)
from nbllm.export.reader import NameReader
from nbllm.export.tables import reads_tables


def statements_of(
    tree: ast.Module,
    *,
    rebound: frozenset[str] = frozenset(),
    imports: Mapping[str, str] | None = None,
    lazy_annotations: bool = False,
    tables: Collection[str] = (),
) -> list[Statement]:
    """Return what each top-level statement does.

    rebound: names that the notebook binds anywhere; a builtin among them is no builtin. imports: what imported names stand
    for. tables: names of tables of constants. lazy_annotations: annotations are not evaluated (`from __future__ import
    annotations`, or Python 3.14).
    """
    lazy = lazy_annotations or sys.version_info >= (3, 14)
    found = []
    for node in tree.body:
        reader = _StatementReader(node, rebound, lazy=lazy)
        reader.imports = imports or {}
        reader.tables = tables
        reader.shown = node is tree.body[-1]
        reader.visit(node)
        reader.finish()
        found.append(reader.done)
    return found


class _StatementReader(NameReader):
    """Reads one statement as a whole."""

    imports: Mapping[str, str]
    tables: Collection[str]
    shown: bool
    """It is the last of its cell, whose value a notebook shows."""

    def finish(self) -> None:
        """Work out what the whole statement certainly binds, and what of it is settled."""
        done, node = self.done, self.top
        match node:
            case ast.Assign(targets=targets):
                done.kills = {n for target in targets for n in sc.stored_names(target)}
                if self._is_settled(node.value):
                    done.settled |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                done.kills = {name}
                done.settled |= {name} if is_plain(value, self.rebound) else set()
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                done.settled |= {name} if is_plain(value, self.rebound) else set()
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                done.kills = {name}
                if not (isinstance(node, ast.ClassDef) and keeps_state(node)):
                    done.settled.add(name)
            case ast.Import(names=aliases):
                done.kills = {a.asname or a.name for a in aliases if a.asname or "." not in a.name}
                done.settled |= done.binds
            case ast.ImportFrom():
                done.kills = done.binds - {ANYTHING}
                done.settled |= done.kills
            case ast.Delete(targets=targets):
                done.kills = done.deletes = {t.id for t in targets if isinstance(t, ast.Name)}
        if "__all__" in done.binds:
            texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            done.later |= {text for text in texts if text.isidentifier()}

    def _is_settled(self, value: ast.expr) -> bool:
        """Whether a value cannot change; what an imported function is asked with cannot either."""
        match value:
            case ast.Lambda(args=ast.arguments(defaults=defaults, kw_defaults=named)):
                return all(is_plain(one, self.rebound) for one in (*defaults, *named) if one is not None)
            case ast.Call(func=called, args=[asked, *given], keywords=named_too) if self._is_partial(called, asked):
                return all(is_plain(one, self.rebound) for one in (*given, *(k.value for k in named_too)))
        return is_plain(value, self.rebound)

    def _is_partial(self, called: ast.expr, asked: ast.expr) -> bool:
        return full_name(called, self.imports) == "functools.partial" and bool(full_name(asked, self.imports))

    def visit_Expr(self, node: ast.Expr) -> None:
        """Look at a value that nobody keeps. What calls a foreign function for nothing else sets its module up: `mylib.start()`."""
        called = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(called, ast.Call) and not self.depth and not (self.shown and node is self.top):
            module, dot, _ = full_name(called.func, self.imports).partition(".")
            name = root_of(called.func)[0]
            if dot and name is not None and name in self.imports and module not in SHOWING | sys.stdlib_module_names:
                self._set_up(name)
        with self.being(quiet=True):
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """Count whatever is handed to a call as changed by it, and the object whose method it is."""
        function = node.func
        name, depth = root_of(function)
        looking = isinstance(function, ast.Name) and name in LOOKING and name not in self.rebound
        only_looks = full_name(function, self.imports) in LOOKING_CALLS and name in self.imports
        if self.reads_table(node) or (isinstance(function, ast.Attribute | ast.Subscript) and self._only_looks(function)):
            with self.being(quiet=True):
                self.visit(function)
        elif isinstance(function, ast.Name):
            with self.being(quiet=name not in self.rebound):  # an object that is called may remember it
                self.visit(function)
            self._hidden(node, function.id)
            if function.id in self.imports and sets_up_module(self.imports[function.id].rpartition(".")[2]):
                self._set_up(function.id)
        else:
            with self.being(quiet=False):
                self.visit(function)
            if isinstance(function, ast.Attribute) and name is not None:
                self._method_of(name, function, depth)
        for argument in node.args:
            with self.being(quiet=looking or only_looks or (self.reads_table(node) and not isinstance(argument, ast.Lambda))):
                self.visit(argument)
        with self.being(quiet=only_looks):
            for keyword in node.keywords:
                self.visit(keyword.value)

    def _only_looks(self, function: ast.Attribute | ast.Subscript) -> bool:
        """Whether a call changes nothing of what its function is got from: `template.render(...)`, `TOOLS["weather"](...)`."""
        if isinstance(function, ast.Subscript):
            return self.reads_table(function.value)
        return function.attr in LOOKING_METHODS and function.attr not in self.rebound and root_of(function)[1] == 1

    def reads_table(self, node: ast.AST) -> bool:
        """Whether an expression only reads tables of constants."""
        root = root_of(node)[0]
        own = root is None or root not in self.tables or sc.is_global(root, self.scopes)
        return own and reads_tables(node, self.tables, self.imports, self.rebound)

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        with self.being(quiet=True if self.reads_table(node.iter) else None):
            self.visit(node.iter)
        for part in (node.target, *node.body, *node.orelse):
            self.visit(part)

    visit_For = visit_AsyncFor = _loop

    def _method_of(self, name: str, function: ast.Attribute, depth: int) -> None:
        """Note what a method of a part of something sets: any part of what is the notebook's, settings of what is imported."""
        if name in self.imports:
            if sets_up_module(function.attr):
                self._store_in(name)
        elif depth > 1 or function.attr in SETS_UP or function.attr.startswith(("set", "seed")):
            self._store_in(name)

    def _handed_out(self, node: ast.Starred | ast.Yield | ast.YieldFrom) -> None:
        """Count what is gone through, which uses an iterator up, and what a generator hands out."""
        with self.being(quiet=False):
            self.generic_visit(node)

    visit_Starred = visit_Yield = visit_YieldFrom = _handed_out

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Look; << and >> are written for what they do to their operands, too."""
        with self.being(quiet=False if isinstance(node.op, ast.LShift | ast.RShift) else None):
            self.generic_visit(node)

    def _hidden(self, node: ast.Call, name: str) -> None:
        """Note what writes into the namespace from behind."""
        if name in self.rebound:
            return
        module_level = not any(scope.kind == "function" for scope in self.scopes)
        anything = (
            (name == "exec" and len(node.args) + len(node.keywords) == 1)
            or name == "globals"
            or (name in {"locals", "vars"} and not node.args and module_level)
        )
        if anything:
            (self.done.touched_later if self.depth else self.done.touched).add(ANYTHING)
        if name in {"setattr", "delattr"} and node.args and (root := root_of(node.args[0])[0]) is not None:
            self._store_in(root)

    def _store_in(self, name: str) -> None:
        self._set_up(name)
        if sc.is_global(name, self.scopes) and not self.depth:
            self.done.stores.add(name)
        elif sc.is_global(name, self.scopes):
            self.done.touched_later.add(name)

    def _set_up(self, name: str) -> None:
        """Note that the module that a name is, or is imported from, is set up."""
        top = self.imports.get(name, "").partition(".")[0]
        if top and top != "nbllm" and sc.is_global(name, self.scopes):
            (self.done.modules_later if self.depth else self.done.modules).add(top)

    def _part(self, node: ast.Attribute | ast.Subscript) -> None:
        stored = not isinstance(node.ctx, ast.Load)
        if stored and (root := root_of(node)[0]) is not None:
            self._store_in(root)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and self.quiet:
            self.done.looked_up.add(node.value.id)
        item = not stored and isinstance(node, ast.Subscript) and self.reads_table(node.value)
        with self.being(quiet=item or (False if stored else None)):
            self.visit(node.value)
        if isinstance(node, ast.Subscript):
            with self.being(quiet=not stored):
                self.visit(node.slice)

    visit_Attribute = visit_Subscript = _part

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Read, change and bind the target."""
        if isinstance(node.target, ast.Name):
            self.read_name(node.target.id, node.lineno)
            self.bind_name(node.target.id)
        else:
            self.visit(node.target)
        with self.being(quiet=is_plain(node.value, self.rebound)):
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Bind when there is a value; the annotation is read."""
        self.annotation(node.annotation)
        if node.value is not None:
            with self.being(quiet=is_plain(node.value, self.rebound)):
                self.visit(node.value)
            self.visit(node.target)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Bind the targets; a plain value keeps nothing of what it was made of."""
        with self.being(quiet=is_plain(node.value, self.rebound)):
            self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Look; `in` may use up an iterator."""
        uses_up = any(isinstance(op, ast.In | ast.NotIn) for op in node.ops)
        with self.being(quiet=not uses_up):
            self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        """Look."""
        with self.being(quiet=True):
            self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Look."""
        with self.being(quiet=True):
            self.generic_visit(node)

    def _test(self, node: ast.If | ast.While | ast.IfExp) -> None:
        with self.being(quiet=True):
            self.visit(node.test)
        for name, value in ast.iter_fields(node):
            if name != "test":
                for child in value if isinstance(value, list) else [value]:
                    self.visit(child)

    visit_If = visit_While = visit_IfExp = _test
