"""What a name may stand for, as the analysis of aliases sees it: the notebook's own definitions, their objects, modules.

And what is known of variables while it goes on.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
PASSING = {
    "list", "tuple", "set", "frozenset", "dict", "iter", "next", "zip", "enumerate", "reversed", "sorted", "map", "filter",
    "min", "max", "sum", "get", "values", "items", "keys", "pop", "popitem", "popleft", "copy", "deepcopy", "setdefault",
    "partial", "reduce", "chain", "from_iterable", "cycle", "islice", "product", "groupby", "deque", "defaultdict",
    "OrderedDict", "ChainMap", "SimpleNamespace", "MappingProxyType", "attrgetter", "itemgetter", "__getitem__", "most_common",
}  # fmt: skip
"""Functions and methods of Python's that give back what they are given, or what they hold."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A function or class ("definition"), an object of a class ("object"), or a module.

    owner: the global name under which it is defined, also for what is nested in it; for a module, its top name. node: its code.
    """

    kind: Literal["definition", "object", "module"]
    owner: str
    node: ast.AST | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression may be, and what may be held by it: its items, their items, its attributes."""

    itself: frozenset[Thing] = frozenset()
    held: frozenset[Thing] = frozenset()

    @property
    def all(self) -> frozenset[Thing]:
        """Both."""
        return self.itself | self.held

    def __or__(self, other: Value) -> Value:
        return Value(self.itself | other.itself, self.held | other.held)


NOTHING = Value()


def together(values: Iterable[Value]) -> Value:
    """Return what any of some values may be and hold."""
    found = list(values)
    return Value(frozenset().union(*(v.itself for v in found)), frozenset().union(*(v.held for v in found)))


def container(values: Iterable[Value]) -> Value:
    """Return a container of some values."""
    return Value(held=frozenset().union(*(v.all for v in values)))


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of a call. star: what `*x` and `**x` hold, which may go to any parameter."""

    positional: Sequence[Value] = ()
    named: Sequence[tuple[str, Value]] = ()
    star: Value = NOTHING

    @property
    def every(self) -> Value:
        """What all of them are and hold."""
        return together([*self.positional, *(v for _, v in self.named), self.star])


def name_of(arguments: Sequence[ast.expr]) -> str:
    """Return the text that is the first of some arguments, "" when it is not written out."""
    first = arguments[0] if arguments else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def parameters(node: Function) -> list[str]:
    """Return the names of a function's positional parameters."""
    return [one.arg for one in (*node.args.posonlyargs, *node.args.args)]


def is_method_of_class(node: Function) -> bool:
    """Whether a method is given its class and no object."""
    if isinstance(node, ast.Lambda):
        return False
    told = any(isinstance(d, ast.Name) and d.id == "classmethod" for d in node.decorator_list)
    return told or node.name in {"__new__", "__init_subclass__", "__class_getitem__"}


def is_static(node: Function) -> bool:
    """Whether a method is given neither."""
    return not isinstance(node, ast.Lambda) and any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)


Slot = tuple[ast.AST | None, str]
"""A variable: the function or comprehension it is local to (None: the module), and its name."""
ATTRIBUTES = "*attributes"
RESULT = "*result"


class Memory:
    """What the variables hold, and what is known of classes."""

    def __init__(self, imports: Mapping[str, str]) -> None:
        self.imports = imports
        self.itself: dict[Slot, set[Thing]] = defaultdict(set)
        self.held: dict[Slot, set[Thing]] = defaultdict(set)
        self.bases: dict[ast.AST, set[Thing]] = defaultdict(set)
        self.methods: dict[str, set[tuple[Thing, Function]]] = defaultdict(set)
        self.around: dict[ast.AST, tuple[ast.AST, ...]] = {}
        self.enums: set[ast.AST] = set()
        self.locals: dict[ast.AST, set[str]] = defaultdict(set)
        self.grew = False

    def value(self, slot: Slot) -> Value:
        """Return what a variable may be and hold."""
        return Value(frozenset(self.itself.get(slot, ())), frozenset(self.held.get(slot, ())))

    def add(self, slot: Slot, value: Value) -> None:
        """Note that a variable may also be and hold something."""
        for table, more in ((self.itself, value.itself), (self.held, value.held)):
            if more and not more <= table[slot]:
                if slot[0] is not None:
                    self.locals[slot[0]].add(slot[1])
                table[slot] |= more
                self.grew = True

    def lineage(self, node: ast.AST | None) -> list[Thing]:
        """Return a class's bases and theirs, as far as the notebook defines them."""
        found: list[Thing] = []
        todo = list(self.bases.get(node, ())) if node is not None else []
        while todo:
            one = todo.pop()
            if one not in found:
                found.append(one)
                todo += self.bases.get(one.node, ()) if one.node is not None else ()
        return found

    def attributes(self, things: Iterable[Thing]) -> Value:
        """Return what attributes of things may be: those of their classes and bases, whichever they are."""
        found = NOTHING
        for one in things:
            if one.kind == "module":
                found |= Value(frozenset({one}))
                continue
            if one.node in self.enums:
                found |= Value(frozenset({one}))
            for owner in (one, *self.lineage(one.node)):
                found |= self.value((owner.node, ATTRIBUTES))
        return found

    def methods_of(self, things: Iterable[Thing], name: str) -> Iterator[tuple[Thing, Function]]:
        """Yield the methods of a name that objects or classes may have."""
        classes = {one.node for thing in things for one in (thing, *self.lineage(thing.node))}
        yield from ((of, method) for of, method in self.methods.get(name, ()) if of.node in classes)
