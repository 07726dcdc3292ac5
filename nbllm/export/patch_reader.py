"""Code that changes what a module, an imported class or the environment is for a whole process: what it changes, and where."""

# ruff: noqa: N815 - ast finds a visitor by the name of its node

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from nbllm.export import scopes as sc
from nbllm.export.names import Definition, is_plain, root_of
from nbllm.redaction import is_secret_name

ANY_MODULE = "*"
"""Stands for "whichever module": what is patched is not written out."""
ENVIRONMENT = "os.environ"
_TABLES = {"sys.modules", ENVIRONMENT}
_DICT_CHANGES = {"update", "setdefault", "pop", "popitem", "clear", "__setitem__", "__delitem__"}
_SETTERS = {"setattr", "delattr", "__setattr__", "__delattr__"}
_PATCHERS = ("mock.patch", "mock.patch.object", "mock.patch.dict", "mock.patch.multiple")
_PATCH_ALL = ("monkey.patch_all", "eventlet.monkey_patch", "curio.monkey.patch_all")
_KEY_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIALS")
_BUILTINS = {"__builtins__": "builtins", "__import__": "builtins.__import__"}


@dataclass(frozen=True, slots=True)
class Patch:
    """One change. target: what is changed, in full, such as `math.pi`, `os.environ` or "*". line: in its cell. said: its code.

    plain: it only sets a plain value, as settings of libraries are set. inside: the outermost function or class around it, "" for
    what runs with the cell. variable: of the environment, "" when it is not written out.
    """

    target: str
    line: int
    said: str
    plain: bool = False
    inside: str = ""
    variable: str = ""

    @property
    def top(self) -> str:
        """The top name of the module that is changed."""
        return self.target.partition(".")[0]

    @property
    def of_environment(self) -> bool:
        """Whether it sets or deletes variables of the environment."""
        return self.target == ENVIRONMENT

    @property
    def of_a_key(self) -> bool:
        """Whether it gives a key by its variable, as a service is given one where it runs."""
        return self.of_environment and is_secret_name(self.variable) and self.variable.upper().endswith(_KEY_ENDINGS)


@dataclass(frozen=True, slots=True)
class Known:
    """What names of the whole notebook stand for. imported: full names of modules, classes ... as import statements have them.

    patchers: name -> what is changed when it is started.
    """

    names: Mapping[str, str]
    imported: frozenset[str]
    patchers: Mapping[str, str] = field(default_factory=dict)
    rebound: frozenset[str] = frozenset()


def patches_in(tree: ast.Module, known: Known) -> list[Patch]:
    """Return every change that a cell's code makes, now or when its functions run, by line."""
    reader = Reader(known)
    for statement in tree.body:
        decorated = isinstance(statement, Definition) and bool(statement.decorator_list)
        reader.inside = statement.name if isinstance(statement, Definition) and not decorated else ""
        with suppress(RecursionError):  # nested so deeply that it is refused as that
            reader.visit(statement)
    return sorted(dict.fromkeys(reader.found), key=lambda p: (p.line, p.target))


class Reader(ast.NodeVisitor):
    """Walks code with the names that functions around a node have of their own."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.found: list[Patch] = []
        self.inside = ""
        self._own: list[set[str]] = []

    # ------------------------------------------------------------------ what an expression names

    def full(self, node: ast.AST) -> str:
        """Return what an expression names in full, "" when that is nothing imported. Attributes of a __dict__ are the module's."""
        match node:
            case ast.Name(id=name):
                if any(name in own for own in self._own):
                    return ""
                return self.known.names.get(name) or ("" if name in self.known.rebound else _BUILTINS.get(name, ""))
            case ast.Attribute(value=inner, attr=attr):
                above = self.full(inner)
                return above and (above if attr in {"__dict__", "__class__"} else f"{above}.{attr}")
            case ast.Subscript(value=inner, slice=key):
                return _text(key) if self.full(inner) == "sys.modules" else ""
            case ast.NamedExpr(value=inner) | ast.Starred(value=inner):
                return self.full(inner)
            case ast.Call(func=function, args=[first, *more]):
                return self._of_call(function, first, more)
        return ""

    def _of_call(self, function: ast.expr, first: ast.expr, more: list[ast.expr]) -> str:
        name = function.id if isinstance(function, ast.Name) and function.id not in self.known.rebound else ""
        if name in {"vars", "super", "type"}:
            return self.full(first)
        if name == "getattr" and more:
            above = self.full(first)
            return above and f"{above}.{_text(more[0]) or ANY_MODULE}"
        if name == "__import__" or self.full(function) in {"importlib.import_module", "builtins.__import__"}:
            return _text(first)
        return ""

    def patched_by(self, node: ast.AST) -> str:
        """Return what a call of unittest.mock.patch would change once it is started, "" for another expression."""
        if not isinstance(node, ast.Call):
            return ""
        name = self.full(node.func)
        if not any(name == one or name.endswith(f".{one}") for one in _PATCHERS):
            return ""
        first = node.args[0] if node.args else next((k.value for k in node.keywords if k.arg in {"target", "in_dict"}), None)
        return self._target(first)

    def _target(self, node: ast.AST | None) -> str:
        """Return what is named by a text or by an expression; "*" when that cannot be told."""
        return (_text(node) or self.full(node) if node is not None else "") or ANY_MODULE

    # ------------------------------------------------------------------ what changes

    def _note(self, node: ast.AST, target: str, *, plain: bool = False, key: ast.AST | None = None) -> None:
        variable = _text(key) if key is not None else ""
        # What a variable is set to may be a secret of any shape.
        said = f"{ENVIRONMENT}[{variable!r}]" if target == ENVIRONMENT and variable else " ".join(ast.unparse(node).split())
        self.found.append(Patch(target, getattr(node, "lineno", 1), said[:60], plain, self.inside, variable))

    def _stored(self, node: ast.AST, target: ast.expr, value: ast.expr | None) -> None:
        """Note a store into an attribute of something imported, or into the table of a module's names."""
        if isinstance(target, ast.Attribute):
            above = self.full(target.value)
            if above and not self._is_setting(above, value):
                self._note(node, f"{above}.{target.attr}", plain=_plain(value))
            elif not above and (root := self.full(ast.Name(root_of(target)[0] or ""))) and self._is_code(value):
                self._note(node, root)
        elif isinstance(target, ast.Subscript) and (table := self._table(target.value)):
            name = _text(target.slice)
            changed = name if table == "sys.modules" and name else table if table in _TABLES else f"{table}.{name or ANY_MODULE}"
            self._note(node, changed, plain=_plain(value), key=target.slice)

    def _table(self, node: ast.AST) -> str:
        """Return whose names a dict is: of `X.__dict__` and `vars(X)` what X is; sys.modules and os.environ as they are."""
        if (full := self.full(node)) in _TABLES:
            return full
        match node:
            case ast.Attribute(attr="__dict__", value=inner) | ast.Call(func=ast.Name(id="vars"), args=[inner]):
                return self.full(inner)
        return ""

    def _is_setting(self, above: str, value: ast.expr | None) -> bool:
        """Whether it sets an option of a library, like pandas.options.display.width: no module's or class's own attribute."""
        if above in self.known.imported or self._is_code(value):
            return False
        return not any(part[:1].isupper() for part in above.split(".")[1:])

    def _is_code(self, value: ast.expr | None) -> bool:
        """Whether a value is a function or class, or stands for none at all."""
        if value is None or isinstance(value, ast.Lambda) or (isinstance(value, ast.Constant) and value.value is None):
            return True
        return isinstance(value, ast.Name) and value.id in self.known.rebound | self.known.names.keys()

    def visit_Assign(self, node: ast.Assign) -> None:
        """Look at every target, those in tuples too."""
        for target in (inner for t in node.targets for inner in ast.walk(t)):
            if isinstance(target, ast.Attribute | ast.Subscript) and isinstance(target.ctx, ast.Store):
                self._stored(node, target, node.value)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Look at the target."""
        if node.value is not None:
            self._stored(node, node.target, node.value)
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Look at the target."""
        self._stored(node, node.target, node.value)
        self.visit(node.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Look at what is deleted, and at targets of loops and with."""
        if not isinstance(node.ctx, ast.Load):
            self._stored(node, node, None)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """As for attributes."""
        if not isinstance(node.ctx, ast.Load):
            self._stored(node, node, None)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Look at calls that set attributes, change tables of names, or start patches."""
        function, first = node.func, node.args[0] if node.args else None
        name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
        above = function.value if isinstance(function, ast.Attribute) else None
        value = node.args[2] if len(node.args) > 2 else None
        if name in _SETTERS:
            self._setter(node, name, above, first, value)
        elif above is not None and name in _DICT_CHANGES and (table := self._table(above)):
            self._note(node, table, key=first)
        elif name in {"setitem", "delitem"} and first is not None and (table := self._table(first)):
            self._note(node, table, plain=_plain(value), key=node.args[1] if len(node.args) > 1 else None)
        elif name in {"setenv", "delenv", "putenv", "unsetenv"} and above is not None:
            self._note(node, ENVIRONMENT, plain=_plain(node.args[-1] if node.args else None), key=first)
        elif (patched := self._started(name, above, first)) or self.full(function).endswith(_PATCH_ALL):
            self._note(node, patched or ANY_MODULE)
        self.generic_visit(node)

    def _setter(self, node: ast.Call, name: str, above: ast.expr | None, first: ast.expr | None, value: ast.expr | None) -> None:
        if above is None and name in self.known.rebound:
            return
        own = self.full(above) if above is not None else ""
        if own in self.known.imported and name.startswith("__"):
            self._note(node, own)  # module.__setattr__(...)
        elif first is not None and (full := self.full(first)):
            self._note(node, f"{full}.{_text(node.args[1]) or ANY_MODULE}" if len(node.args) > 1 else full, plain=_plain(value))
        elif above is not None and not name.startswith("__") and "." in _text(first):
            self._note(node, _text(first))  # monkeypatch.setattr("json.dumps", ...)

    def _started(self, name: str, above: ast.expr | None, first: ast.expr | None) -> str:
        """Return what is patched from here on: patch(...).start(), stack.enter_context(patch(...))."""
        if name in {"start", "__enter__"} and above is not None:
            return self.patched_by(above) or (self.known.patchers.get(above.id, "") if isinstance(above, ast.Name) else "")
        if name in {"enter_context", "enterContext"} and first is not None:
            return self.patched_by(first)
        return ""

    # ------------------------------------------------------------------ scopes

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        for part in sc.evaluated_outside(node):
            self.visit(part)
        self._own.append(sc.function_scope(node).local - _imported_in(node))
        for part in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self.visit(part)
        self._own.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function


def _imported_in(node: ast.AST) -> set[str]:
    """Return names that a function imports: its own, and modules all the same."""
    return {n for s in ast.walk(node) if isinstance(s, ast.Import | ast.ImportFrom) for n in sc.names_of_import(s)}


def _text(node: ast.AST | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _plain(value: ast.expr | None) -> bool:
    return value is not None and is_plain(value) and not (isinstance(value, ast.Constant) and value.value is None)
