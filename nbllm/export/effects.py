"""What follows from the statements together: what calling a name may change, and which names may share an object."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from nbllm.export.aliases import Aliases
from nbllm.export.changeable import changed_by_looking, changed_results, held_by
from nbllm.export.imports import full_name
from nbllm.export.names import ANYTHING, Definition, Statement

_MODULE = "module "
"""Stands before a module's name among the names that are wanted: no variable is called so."""
_SEEN_EVERYWHERE = {f"{_MODULE}codecs"}
"""Modules whose set-up code uses that does not name them: `"a".encode("mine")`."""


class Effects:
    """The notebook's statements seen as a whole, without regard to their order: an answer holds for any order.

    A name is settled when everything that is ever bound to it cannot change (a definition, an import, a literal). What sets
    attributes of a definition is known one by one, by whatever name it does, so that the definition need not be unsettled for it.
    tried: the flows. A cell that calls one tries it out; what that leaves behind is no part of what a service starts with.
    imports: what imported names stand for.
    """

    def __init__(
        self, statements: Sequence[Statement], *, tried: Collection[str] = (), imports: Mapping[str, str] | None = None
    ) -> None:
        self._aliases = Aliases(statements, imports or {})
        loose = {name for s in statements for name in (s.binds - s.settled) | s.bound_later}
        loose |= _changed_definitions(statements, loose, self._aliases.filled) - set(tried)
        self.bound = {name for s in statements for name in s.binds | s.bound_later}
        self.settled = self.bound - loose
        self._reads = _closed(statements, self.settled, lambda s: s.later)
        self._tried = frozenset(tried)
        self._count_looks(statements, imports or {})
        self._touches = _closed(statements, self.settled, lambda s: s.touched_later, without=self._tried)
        self._note_changes(statements)
        self._parent: dict[str, str] = {}
        for statement in statements:
            shared = [n for n in self.changed_by(statement) | statement.binds if n in self.bound and n not in self.settled]
            for name in shared[1:]:
                self._parent[self._group(name)] = self._group(shared[0])

    def _count_looks(self, statements: Sequence[Statement], imports: Mapping[str, str]) -> None:
        """Count looking at objects that looking changes as a change."""
        classes = {s.node.name for s in statements if isinstance(s.node, ast.ClassDef) and changed_by_looking(s.node)}
        tables = {n for s in statements for n in s.binds if _makes_default(s.node, imports)}
        for statement in statements if classes or tables else ():
            looked_up = statement.looked_up & tables
            statement.touched |= looked_up | {n for n in statement.looked if classes & self._aliases.owners(n)}
            statement.touched_later |= {n for n in statement.looked_later if classes & self._aliases.owners(n)}

    def _note_changes(self, statements: Sequence[Statement]) -> None:
        """Work out for each statement which definitions it changes and which modules it sets up, through what it calls too."""
        aliases, found = self._aliases, zip(statements, self._aliases.changes, self._aliases.changes_later, strict=True)
        now: dict[int, set[str]] = {}
        later: dict[int, set[str]] = {}
        listed = any(_lists_subclasses(s.node) for s in statements)
        for s, changes, changes_later in found:
            now[id(s)] = set(changes) | {f"{_MODULE}{top}" for top in s.modules}
            later[id(s)] = set(changes_later) | {f"{_MODULE}{top}" for top in s.modules_later}
            if listed and isinstance(s.node, ast.ClassDef):
                now[id(s)] |= aliases.owners(s.node.name) - {s.node.name}
        through = _closed(statements, self.settled, lambda s: later[id(s)], without=self._tried)
        self._changes: dict[int, frozenset[str]] = {}
        self._holders: dict[str, set[str]] = defaultdict(set)
        self._modules: dict[str, set[str]] = defaultdict(set)
        for s in statements:
            at_once = _may_call(s) and not isinstance(s.node, Definition)
            named = s.now | (s.later if at_once else set())
            own = now[id(s)] | (later[id(s)] if at_once else set())
            self._changes[id(s)] = frozenset(own.union(*(through.get(name, ()) for name in named - self._tried)))
        changed = frozenset().union(*self._changes.values())
        self._everywhere = changed & _SEEN_EVERYWHERE
        for name in self.bound if changed else ():
            for one in changed & {*aliases.owners(name), *(f"{_MODULE}{top}" for top in aliases.modules(name))}:
                self._holders[one].add(name)
        for one, names in self._holders.items():
            for name in names if one.startswith(_MODULE) else ():
                self._modules[name].add(one)

    def with_modules(self, names: Iterable[str]) -> set[str]:
        """Return names and what stands for modules behind them that are set up somewhere.

        Such a module stays wanted where an import binds its name anew, or where only an object that it made is left of it.
        """
        found = set(names) | self._everywhere
        return found.union(*(self._modules[name] for name in found & self._modules.keys())) if self._modules else found

    def read_by(self, statement: Statement) -> set[str]:
        """Return the names that must be there when a statement runs, those that the functions it names read included."""
        at_once = statement.later if _may_call(statement) else set()
        return (statement.now | at_once).union(*(self._reads.get(name, ()) for name in statement.now | at_once))

    def changed_by(self, statement: Statement) -> set[str]:
        """Return the names whose objects a statement may change or keep, also through the functions that it names."""
        at_once = _may_call(statement) and not isinstance(statement.node, Definition)
        touched = statement.touched | (statement.touched_later if at_once else set())
        named = statement.now | (statement.later if at_once else set())
        return touched.union(*(self._touches.get(name, ()) for name in named - self._tried))

    def may_change(self, statement: Statement, live: Iterable[str]) -> set[str]:
        """Return which of the live names a statement may change without binding them; all of them for one that may do anything."""
        changed = self.changed_by(statement)
        wanted = set(live)
        if ANYTHING in changed:
            return wanted
        groups = {self._group(name) for name in changed if name in self.bound and name not in self.settled}
        hit = {name for name in wanted if name in self.bound and name not in self.settled and self._group(name) in groups}
        for one in self._changes.get(id(statement), ()):
            hit |= wanted & {one, *self._holders.get(one, ())}
        return hit | (statement.stores & wanted) | (changed & wanted - self.settled)

    def _group(self, name: str) -> str:
        while (above := self._parent.get(name, name)) != name:
            self._parent[name] = self._parent.get(above, above)
            name = above
        return name


def _changed_definitions(statements: Sequence[Statement], loose: Collection[str], filled: Collection[str]) -> set[str]:
    """Return the classes and functions that hold what a notebook may change: what they gave, what signs up, subclasses.

    filled: those that are given a container.
    """
    nodes = [s.node for s in statements]
    defined = {node.name for node in nodes if isinstance(node, Definition)}
    found = {name for s in statements for name in s.signs_up} | changed_results(nodes) | set(filled)
    found &= defined
    holding = {node.name: list(held_by(node)) for node in nodes if isinstance(node, ast.ClassDef)}
    while True:  # a class shares what its bases keep, and what it holds
        unsettled = found | set(loose)
        more = {s.node.name for s in statements if isinstance(s.node, ast.ClassDef) and s.bases & unsettled & defined}
        more |= {name for name, held in holding.items() if any(n in unsettled or (c and n in holding) for n, c in held)}
        if more <= found:
            return found
        found |= more


def _lists_subclasses(node: ast.stmt | None) -> bool:
    return node is not None and any(isinstance(n, ast.Attribute) and n.attr == "__subclasses__" for n in ast.walk(node))


def _makes_default(node: ast.stmt | None, imports: Mapping[str, str]) -> bool:
    """Whether an assignment makes a defaultdict, in which looking a key up puts it."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return isinstance(value, ast.Call) and full_name(value.func, imports) == "collections.defaultdict"


def _may_call(statement: Statement) -> bool:
    """Whether a statement may itself call the functions that are in it; a def without decorators only makes one."""
    plain = isinstance(statement.node, ast.FunctionDef | ast.AsyncFunctionDef) and not statement.node.decorator_list
    return statement.node is not None and not plain


def _closed(
    statements: Sequence[Statement],
    settled: set[str],
    own: Callable[[Statement], set[str]],
    without: frozenset[str] = frozenset(),
) -> Mapping[str, frozenset[str]]:
    """Return for each name what its code reads (or changes) when it runs, through every name that it may hold or call.

    without: names whose code is none of it: what is handed to a flow that is tried out does not change what the flow uses.
    """
    direct: dict[str, set[str]] = defaultdict(set)
    through: dict[str, set[str]] = defaultdict(set)
    for statement in statements:
        kept_in = statement.binds | statement.bound_later | {n for n in statement.touched if n not in settled}
        for name in kept_in:
            direct[name] |= own(statement)
            through[name] |= (statement.later | statement.now) - without
    names = set(direct)
    users: dict[str, set[str]] = defaultdict(set)
    for name, inner in through.items():
        for one in inner & names:
            users[one].add(name)
    todo = set(names)
    while todo:
        name = todo.pop()
        for user in users[name]:
            if not direct[name] <= direct[user]:
                direct[user] |= direct[name]
                todo.add(user)
    return {name: frozenset(found) for name, found in direct.items()}
