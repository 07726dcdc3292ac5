"""What one statement of a cell does to the notebook's names: binds, reads, may change, now or when its functions run.

Everything errs on the side of more: a cell that is kept without need costs a line to read, one that is missing costs the answer.
What is not seen: what C code does behind a name, and `__del__`. Operators, items and attributes count as looking; objects of those
classes of the notebook that looking changes are told apart in effects.py.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from nbllm.export import scopes as sc

ANYTHING = "*"
"""Stands for "any name": what a star-import binds, and what exec() or a write into globals() may change."""

LOOKING = frozenset(
    [
        "len",
        "print",
        "str",
        "repr",
        "isinstance",
        "issubclass",
        "type",
        "hash",
        "id",
        "callable",
        "hasattr",
        "bool",
        "int",
        "float",
        "format",
        "ascii",
        "abs",
        "round",
        "ord",
        "chr",
    ]
)
"""Builtins that look at their arguments and keep nothing of them."""
LOOKING_CALLS = frozenset(
    {"json.dumps", "copy.deepcopy", "textwrap.dedent", "pprint.pprint", "nbllm.render"}
    | {f"nbllm.{name}" for name in ("ask", "aask", "stream", "astream", "embed", "aembed")}
)
"""Functions of modules that do the same."""
LOOKING_METHODS = {
    "critical", "debug", "decode", "encode", "endswith", "error", "exception", "format", "format_map", "info", "isoformat", "join",
    "lower", "lstrip", "model_dump", "model_dump_json", "render", "replace", "rstrip", "safe_substitute", "split", "splitlines",
    "startswith", "strftime", "strip", "substitute", "title", "upper", "warning",
}  # fmt: skip
"""Methods that look at their object, of texts, templates, loggers and dates, unless a class of the notebook has one of the name."""
_MAKES_PLAIN = (LOOKING | {"any", "all", "bytes"}) - {"abs", "round", "type"}
MAKES_NEW = {"abs", "round", "type"}
"""Builtins whose result may be changed, which changes nothing of what they looked at."""
_PLAIN_METHODS = {"read_text", "read_bytes", "getenv", "dedent"}
SETS_UP = {"basicConfig", "filterwarnings", "simplefilter", "install", "patch", "manual_seed", "register", "update"}
"""Methods that set something up, whatever they belong to; so do those that begin with set or seed."""
SETS_UP_MODULE = SETS_UP | {
    "append", "autolog", "captureWarnings", "clear", "configure", "dictConfig", "disable", "enable", "extend", "field_size_limit",
    "fileConfig", "getcontext", "insert", "manual_seed_all", "pop", "remove", "removeHandler", "setdefault", "signal", "unregister",
    "use",
}  # fmt: skip
_SETTING_UP = ("set", "seed", "register", "unregister", "add", "enable", "disable", "use_", "config", "init", "manual_seed")
"""Functions of modules that do so begin like this."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(slots=True)
class Statement:
    """What one top-level statement does.

    binds: global names it may bind or delete; kills: those that it certainly does. now, later: global names read when it runs and
    when functions in it run. touched, touched_later: those whose objects may be changed, kept by another name or handed to a
    call. stores: names whose attributes or parts are set. settled: names that it binds to what cannot change (a definition,
    an import, a literal). signs_up: names under whose methods it decorates. bases: what its class is made of. modules: the modules
    that it sets up. looked: names that it looks at, now or in its functions, without counting as a change. looked_up: those of
    them that it takes an item of. soft: read, but need not exist. first_line: name -> the line where it is read first.
    """

    node: ast.stmt | None
    line: int
    binds: set[str] = field(default_factory=set)
    kills: set[str] = field(default_factory=set)
    deletes: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    touched_later: set[str] = field(default_factory=set)
    bound_later: set[str] = field(default_factory=set)
    stores: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    modules_later: set[str] = field(default_factory=set)
    looked: set[str] = field(default_factory=set)
    looked_later: set[str] = field(default_factory=set)
    looked_up: set[str] = field(default_factory=set)
    signs_up: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)
    soft: set[str] = field(default_factory=set)
    first_line: dict[str, int] = field(default_factory=dict)

    @property
    def is_import(self) -> bool:
        """Whether it is an import that can stand at the top of a module; a star-import stays where it is."""
        return isinstance(self.node, ast.Import | ast.ImportFrom) and ANYTHING not in self.binds

    @property
    def needs(self) -> set[str]:
        """The names that must exist for it."""
        return (self.now | self.later) - self.soft


SHOWING = {
    "IPython", "altair", "bokeh", "ipywidgets", "matplotlib", "nbllm", "numpy", "pandas", "plotly", "polars", "rich", "seaborn",
    "tqdm",
}  # fmt: skip
"""Libraries whose functions are called for what they show or give, and are set up by functions with names as above."""


def sets_up_module(function: str) -> bool:
    """Whether a function of a module, by the last part of its name, sets something up there: `csv.register_dialect`, `seed`."""
    return function in SETS_UP_MODULE or function.startswith(_SETTING_UP)


def bound_anywhere(tree: ast.AST) -> set[str]:
    """Return every name that is bound somewhere in a tree, in whatever scope."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, Definition):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(sc.names_of_import(node))
    return found


def root_of(node: ast.AST) -> tuple[str | None, int]:
    """Return the name that an expression hangs on and how many attributes and subscripts lie between: (None, n) without one."""
    depth = 0
    while True:
        match node:
            case ast.Name(id=name):
                return name, depth
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
                node, depth = inner, depth + 1
            case ast.Call(func=inner) | ast.Await(value=inner):
                node = inner
            case _:
                return None, depth


def is_plain(node: ast.expr | None, rebound: frozenset[str] = frozenset()) -> bool:
    """Whether an expression's value certainly cannot change: literals, texts, and what builtins make of anything."""
    match node:
        case ast.Constant() | ast.JoinedStr():
            return True
        case ast.Tuple(elts=items):
            return all(is_plain(item, rebound) for item in items)
        case ast.UnaryOp(operand=inner):
            return is_plain(inner, rebound)
        case ast.BinOp(left=left, right=right):
            return is_plain(left, rebound) and is_plain(right, rebound)
        case ast.Call(func=ast.Name(id="sum"), args=[ast.GeneratorExp(elt=item) | ast.ListComp(elt=item)]):
            return "sum" not in rebound and is_plain(item, rebound)
        case ast.Call(func=ast.Name(id=name)):
            return name in _MAKES_PLAIN and name not in rebound
        case ast.Call(func=ast.Attribute(attr=method)):
            return method in _PLAIN_METHODS and method not in rebound
        case ast.Compare(left=left, comparators=others):
            return all(is_plain(item, rebound) for item in (left, *others))
    return False
