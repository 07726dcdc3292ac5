"""Which definitions of a notebook can change once they are made, and which functions change what they are given or gave.

A class of fields and methods, or a function, is the same for good, so that a cell which only tries it out is not kept. A class that
keeps state of its own, or lets others sign up with it, is another thing. Everything errs on the side of "it can change".
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence

from nbllm.export.names import is_plain, root_of

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_OF_CLASS = {"__init_subclass__", "__class_getitem__"}
"""Methods that are given the class without being told to."""
_NEVER_LOOKED = {
    "__init__", "__new__", "__post_init__", "__del__", "__call__", "__enter__", "__exit__", "__aenter__", "__aexit__",
    "__setattr__", "__setitem__", "__delattr__", "__delitem__", "__init_subclass__", "__class_getitem__", "__set_name__",
    "__setstate__", "__iadd__", "__ior__", "__isub__", "__imul__", "__iand__", "__ixor__", "__lshift__", "__rshift__",
}  # fmt: skip
"""Methods whose use counts as a change in any case, or is none of an object that is there."""
_CONTAINERS = {
    "list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "count", "Queue", "SimpleNamespace",
    "ChainMap", "Random", "default_rng", "iter", "cycle",
}  # fmt: skip
CHANGING = {
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem", "popleft", "push", "put",
    "register", "remove", "reverse", "setdefault", "sort", "update", "write",
}  # fmt: skip
"""Methods that change their object, whatever it is."""


def keeps_state(node: ast.ClassDef) -> bool:
    """Whether a class holds something of its own that may change: a container, or what its methods set on the class."""
    return any(_holds(part, node) for part in node.body)


def _holds(part: ast.stmt, of: ast.ClassDef) -> bool:
    match part:
        case ast.Assign(value=value):
            return is_container(value)
        case ast.AnnAssign(value=ast.expr() as value, annotation=hint):
            # Where a base class makes fields of annotations, each object gets its own.
            return (not (of.bases or of.decorator_list) or "ClassVar" in ast.unparse(hint)) and is_container(value)
        case ast.ClassDef():
            return keeps_state(part)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return part.name == "__init_subclass__" or not _own_names(part, of).isdisjoint(_changed_in(part.body))
    return False


def held_by(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """Yield the names in values that a class holds, and whether each is called there: `items = shared`, `log = Log()`."""
    for part in node.body:
        match part:
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                called = {id(n.func) for n in ast.walk(value) if isinstance(n, ast.Call)}
                yield from ((n.id, id(n) in called) for n in ast.walk(value) if isinstance(n, ast.Name))


def changed_by_methods(node: ast.ClassDef) -> set[str]:
    """Return the names of those methods of a class that change the object whose they are, themselves or through one another."""
    methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)}
    found: set[str] = set()
    while True:
        more = {name for name, method in methods.items() if name not in found and _changes_its_own(method, found)}
        if not more:
            return found
        found |= more


def _changes_its_own(method: _Function, known: set[str]) -> bool:
    own = {a.arg for a in (*method.args.posonlyargs, *method.args.args)[:1]}
    for node in (n for statement in method.body for n in ast.walk(statement)):
        match node:
            case ast.Attribute() | ast.Subscript() if not isinstance(node.ctx, ast.Load) and root_of(node)[0] in own:
                return True
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=called)) if name in own and called in known:
                return True
            case ast.Call(func=ast.Attribute(attr=called) as function) if called in CHANGING:
                if root_of(function)[0] in own and root_of(function)[1] > 1:
                    return True
    return False


def changed_by_looking(node: ast.ClassDef) -> bool:
    """Whether an operator, an attribute or a text of an object changes it: `pipe | "clean"`, `registry["a"]`, `print(counter)`."""
    for method in (m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)):
        looked = method.name.startswith("__") and method.name.endswith("__") and method.name not in _NEVER_LOOKED
        looked |= any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)
        own = {a.arg for a in (*method.args.posonlyargs, *method.args.args)[:1]}
        if looked and not own.isdisjoint(_changed_in(method.body)):
            return True
    return False


def _own_names(method: _Function, of: ast.ClassDef) -> set[str]:
    """Return the names by which a method knows its class."""
    first = {a.arg for a in (*method.args.posonlyargs, *method.args.args)[:1]}
    of_class = method.name in _OF_CLASS or any(isinstance(d, ast.Name) and d.id == "classmethod" for d in method.decorator_list)
    return {of.name, *(first if of_class else ())}


def is_container(value: ast.expr) -> bool:
    """Whether a value of a class's body is a container, or made by a call that makes one."""
    match value:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _CONTAINERS
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return True
    return False


def _changed_in(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Yield the names whose objects statements change: parts that are set, methods of parts, setattr, what is handed on."""
    for node in (n for statement in body for n in ast.walk(statement)):
        match node:
            case ast.Attribute() | ast.Subscript() if not isinstance(node.ctx, ast.Load):
                yield from _root(node)
            case ast.Call(func=ast.Name(id="setattr" | "delattr"), args=[target, *_]):
                yield from _root(target)
            case ast.Call(func=ast.Attribute() as method) if root_of(method)[1] > 1:
                yield from _root(method)


def _root(node: ast.expr) -> Iterator[str]:
    name, _ = root_of(node)
    if name is not None:
        yield name


def changed_results(nodes: Sequence[ast.stmt | None]) -> set[str]:
    """Return the names of those functions that may give the same object each time, and whose object the notebook changes.

    Such are a cached function and one that gives back a default: `settings()["lang"] = "en"` changes what the next call gives.
    """
    same = {n.name for n in nodes if isinstance(n, _Function) and (n.decorator_list or _has_objects_as_defaults(n))}
    made: dict[str, set[str]] = defaultdict(set)
    changed: set[str] = set()
    for node in (inner for top in nodes if same and top is not None for inner in ast.walk(top)):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.NamedExpr(target=ast.Name(id=name), value=value):
                made[name].update(_root(value))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                made[name].update(_root(value))
            case ast.Attribute() | ast.Subscript() if not isinstance(node.ctx, ast.Load):
                changed.update(_root(node))
            case ast.AugAssign(target=ast.Name(id=name)):
                changed.add(name)
            case ast.Call(func=ast.Attribute(attr=method) as function) if method in CHANGING:
                changed.update(_root(function))
    return same & changed.union(*(made[name] for name in changed if name in made))


def _has_objects_as_defaults(node: _Function) -> bool:
    return not all(is_plain(one) for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None)
