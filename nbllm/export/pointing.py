"""What each name of a notebook may be or hold of its definitions, whatever they are called by: Andersen's analysis, without fields.

Cells are gone through without regard to their order, again and again until nothing is added. What a library does with a function
or class that it is given is not seen, but that it may call the function with the rest of what it is given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

from nbllm.export import scopes as sc
from nbllm.export.imports import full_name
from nbllm.export.names import LOOKING_CALLS
from nbllm.export.things import (
    ATTRIBUTES,
    NOTHING,
    PASSING,
    RESULT,
    Function,
    Given,
    Memory,
    Slot,
    Thing,
    Value,
    container,
    is_method_of_class,
    is_static,
    name_of,
    parameters,
    together,
)


class Evaluator:
    """Says what expressions may be, and hands what calls are given to the functions that they may call."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.scopes: list[tuple[sc.Scope, ast.AST | None]] = [(sc.Scope("module"), None)]
        self.owner = ""
        self.called: dict[ast.Call, Value] = {}  # in this round: chains of methods are looked at from each of their links
        self._scope_of: dict[ast.AST, sc.Scope] = {}

    # ------------------------------------------------------------------ names

    def slot(self, name: str) -> Slot:
        """Return the variable that a name is here."""
        for distance, (scope, node) in enumerate(reversed(self.scopes)):
            if scope.kind == "module" or name in scope.of_module:
                break
            if scope.kind == "class" and distance:
                continue
            if name in scope.local and name not in scope.of_outer:
                return (node, ATTRIBUTES if scope.kind == "class" else name)
        return (None, name)

    def scope(self, node: ast.AST) -> sc.Scope:
        """Return the scope that a function, class or comprehension opens."""
        if node not in self._scope_of:
            if isinstance(node, ast.ClassDef):
                made = sc.body_scope("class", node.body)
            elif isinstance(node, sc.FUNCTIONS):
                made = sc.function_scope(node)
            else:
                made = sc.comprehension_scope(getattr(node, "generators", ()))
            self._scope_of[node] = made
        return self._scope_of[node]

    def define(self, node: ast.AST, owner: str) -> Thing:
        """Return the thing that a definition makes, and remember what it stands in."""
        self.memory.around.setdefault(node, tuple(n for _, n in self.scopes if n is not None))
        return Thing("definition", owner, node)

    # ------------------------------------------------------------------ expressions

    def value(self, node: ast.AST | None) -> Value:
        """Return what an expression may be and hold."""
        match node:
            case None | ast.Constant():
                return NOTHING
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute(value=inner, attr=attr):
                return self._attribute(self.value(inner), attr)
            case ast.Subscript(value=inner, slice=key):
                self.value(key)
                return self.item_of(self.value(inner))
            case ast.Call():
                if node not in self.called:
                    self.called[node] = NOTHING
                    self.called[node] = self._call(node)
                return self.called[node]
            case ast.Lambda():
                return self._lambda(node)
            case ast.NamedExpr(target=target, value=inner):
                found = self.value(inner)
                self.memory.add(self.slot(target.id), found)
                return found
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
            case ast.List() | ast.Tuple() | ast.Set() | ast.Dict():
                return container([self.value(child) for child in ast.iter_child_nodes(node)])
            case ast.Starred(value=inner):
                return self.item_of(self.value(inner))
            case ast.Yield(value=inner) | ast.YieldFrom(value=inner):
                found = self.value(inner)
                self.give(Value(held=found.all))
                return found
        found = together(self.value(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
        return NOTHING if isinstance(node, ast.Compare | ast.JoinedStr) else found

    def _named(self, name: str) -> Value:
        slot = self.slot(name)
        found = self.memory.value(slot)
        if slot[0] is None and name in self.memory.imports:
            found |= Value(frozenset({Thing("module", self.memory.imports[name].partition(".")[0])}))
        return found

    def _attribute(self, of: Value, attr: str) -> Value:
        if attr == "__class__":
            return Value(_classes(of.itself))
        held = of.held | self.memory.attributes(of.itself).all
        bound = frozenset(Thing("definition", one.owner, method) for one, method in self.memory.methods_of(of.itself, attr))
        return Value(held | bound, held)

    def item_of(self, value: Value) -> Value:
        """Return what an item of a value may be. Items of an Enum are its own."""
        own = frozenset(t for t in value.itself if t.kind == "module" or t.node in self.memory.enums)
        given = [self._run(m, value.itself, Given()) for name in ("__getitem__", "__iter__", "__next__")
                 for _, m in self.memory.methods_of(value.itself, name)]  # fmt: skip
        more = together(given)
        return Value(value.held | own | more.all, value.held | more.held)

    def _lambda(self, node: ast.Lambda) -> Value:
        made = self.define(node, self.owner)
        self.defaults(node)
        self.scopes.append((self.scope(node), node))
        self.memory.add((node, RESULT), self.value(node.body))
        self.scopes.pop()
        return Value(frozenset({made}))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        first = self.value(node.generators[0].iter)
        self.scopes.append((self.scope(node), node))
        for number, generator in enumerate(node.generators):
            self.bind(generator.target, self.item_of(self.value(generator.iter) if number else first))
            for test in generator.ifs:
                self.value(test)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        found = container([self.value(part) for part in parts])
        self.scopes.pop()
        return found

    def defaults(self, node: Function) -> None:
        """Give parameters their defaults."""
        names = parameters(node)
        for name, default in zip(names[len(names) - len(node.args.defaults) :], node.args.defaults, strict=True):
            self.memory.add((node, name), self.value(default))
        for one, named in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            self.memory.add((node, one.arg), self.value(named))

    def bind(self, target: ast.AST, value: Value) -> None:
        """Give a target of an assignment, a loop or a with its value; what is stored in a part is held by the whole."""
        match target:
            case ast.Name(id=name):
                self.memory.add(self.slot(name), value)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self.bind(part, self.item_of(value) | value)
            case ast.Starred(value=inner):
                self.bind(inner, container([value]))
            case ast.Attribute(value=inner) | ast.Subscript(value=inner):
                self.store(inner, value)  # an item is as good as an attribute

    def decorated(self, decorator: ast.expr, value: Value) -> Value:
        """Return what a decorator of the notebook makes of a function or class."""
        called = self.value(decorator)
        return together(self._run(t.node, frozenset(), Given([value]), t) for t in called.itself if t.kind != "module")

    def store(self, into: ast.AST, value: Value) -> None:
        """Note that an expression's value holds something from here on, and what it hangs on too."""
        while True:
            for one in self.value(into).itself:
                if one.kind != "module":
                    self.memory.add((one.node, ATTRIBUTES), value)
            if not isinstance(into, ast.Attribute | ast.Subscript | ast.Call | ast.Await):
                break
            into = into.func if isinstance(into, ast.Call) else into.value
        if isinstance(into, ast.Name):
            self.memory.add(self.slot(into.id), Value(held=value.all))

    def give(self, value: Value) -> None:
        """Note that the function around here gives something."""
        node = next((n for _, n in reversed(self.scopes) if isinstance(n, sc.FUNCTIONS)), None)
        if node is not None:
            self.memory.add((node, RESULT), value)

    # ------------------------------------------------------------------ calls

    def _call(self, node: ast.Call) -> Value:
        given = Given(
            [self.value(a) for a in node.args if not isinstance(a, ast.Starred)],
            [(k.arg, self.value(k.value)) for k in node.keywords if k.arg is not None],
            together([self.value(a) for a in node.args if isinstance(a, ast.Starred)]
                     + [self.item_of(self.value(k.value)) for k in node.keywords if k.arg is None]),
        )  # fmt: skip
        function = node.func
        if isinstance(function, ast.Attribute):
            return self._method(function, given)
        name = function.id if isinstance(function, ast.Name) else ""
        if name == "type" and len(node.args) == 1:
            return Value(_classes(given.every.itself))
        if name == "getattr" and given.positional:
            return self._attribute(given.positional[0], name_of(node.args[1:])) | given.every
        if name == "setattr" and len(given.positional) > 2:
            self.bind(ast.Attribute(node.args[0], "", ast.Store()), given.positional[2])
        if name in {"vars", "super"}:
            return given.every
        called = self.value(function)
        known = [self._run(t.node, frozenset(), given, t) for t in called.itself if t.kind != "module"]
        if known or full_name(function, self.memory.imports) in LOOKING_CALLS:
            return together(known)
        return self._foreign(name, called, NOTHING, given)

    def _method(self, function: ast.Attribute, given: Given) -> Value:
        if full_name(function, self.memory.imports) in LOOKING_CALLS:
            return NOTHING
        of = self.value(function.value)
        own = {t for t in of.itself if t.kind != "module"}
        methods = list(self.memory.methods_of(own, function.attr))
        if not own and not of.itself:  # nobody knows what it is: any class may be meant
            methods = list(self.memory.methods.get(function.attr, ()))
        known = [self._run(method, of.itself | ({c} if not own else set()), given) for c, method in methods]
        called = self._attribute(of, function.attr).itself - {Thing("definition", c.owner, m) for c, m in methods}
        known += [self._run(t.node, frozenset(), given, t) for t in called if t.kind == "definition"]
        if known and own:
            return together(known)
        self.store(function.value, given.every)
        return together([*known, self._foreign(function.attr, NOTHING, of, given)])

    def _foreign(self, name: str, called: Value, of: Value, given: Given) -> Value:
        """Return what a call of something that is not the notebook's may give, which may call functions that it is given."""
        every = given.every | of
        name = self.memory.imports.get(name, name).rpartition(".")[2]
        results = [
            self._run(t.node, frozenset(), Given(star=Value(every.all - {t}, every.held - {t})), t)
            for t in given.every.all
            if t.kind == "definition" and not isinstance(t.node, ast.ClassDef)
        ]
        modules = frozenset(t for t in (*called.itself, *of.itself) if t.kind == "module")
        found = together([Value(modules), *results, container(results)])
        if name in PASSING:
            return found | Value(every.all, every.all)
        made = frozenset(Thing("object", t.owner, t.node) for t in every.all if t.kind != "module")
        return found | Value(made, made)

    def _run(self, node: ast.AST | None, of: frozenset[Thing], given: Given, thing: Thing | None = None) -> Value:
        """Hand a call's arguments to what is called; return what it gives."""
        if thing is not None and thing.kind == "object":
            return together(self._run(m, frozenset({thing}), given) for _, m in self.memory.methods_of([thing], "__call__"))
        if isinstance(node, ast.ClassDef) and thing is not None:
            made = thing if node in self.memory.enums else Thing("object", thing.owner, node)
            for maker in ("__init__", "__post_init__", "__new__"):
                for _, method in self.memory.methods_of([thing], maker):
                    self._run(method, frozenset({made if maker != "__new__" else thing}), given)
            self.memory.add((node, ATTRIBUTES), given.every)
            return Value(frozenset({made}))
        if not isinstance(node, sc.FUNCTIONS):
            return NOTHING
        names = parameters(node)
        if of and names and not is_static(node):
            own = _classes(of) if is_method_of_class(node) else of
            self.memory.add((node, names[0]), Value(own))
            names = names[1:]
        self._hand_over(node, names, given)
        return self.memory.value((node, RESULT))

    def _hand_over(self, node: Function, names: Sequence[str], given: Given) -> None:
        for number, value in enumerate(given.positional):
            if number < len(names):
                self.memory.add((node, names[number]), value)
            elif node.args.vararg is not None:
                self.memory.add((node, node.args.vararg.arg), container([value]))
        known = {*names, *(one.arg for one in node.args.kwonlyargs)}
        for name, value in given.named:
            if name in known:
                self.memory.add((node, name), value)
            elif node.args.kwarg is not None:
                self.memory.add((node, node.args.kwarg.arg), container([value]))
        if given.star.all:
            rest = [one.arg for one in (node.args.vararg, node.args.kwarg) if one is not None]
            for name in (*known, *rest):
                self.memory.add((node, name), given.star)


def _classes(things: Iterable[Thing]) -> frozenset[Thing]:
    return frozenset(Thing("definition", t.owner, t.node) if t.kind == "object" else t for t in things)
