"""What follows from the statements together: what calling a name may change, and which names may share an object."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from nbllm.export.changeable import changed_results, changing_functions
from nbllm.export.names import ANYTHING, Definition, Statement


class Effects:
    """The notebook's statements seen as a whole, without regard to their order: an answer holds for any order.

    A name is settled when everything that is ever bound to it cannot change (a definition, an import, a literal).
    tried: the flows. A cell that calls one tries it out; what that leaves behind is no part of what a service starts with.
    """

    def __init__(self, statements: Sequence[Statement], *, tried: Collection[str] = ()) -> None:
        loose = {name for s in statements for name in (s.binds - s.settled) | s.bound_later}
        loose |= _changed_definitions(statements, loose) - set(tried)
        self.bound = {name for s in statements for name in s.binds | s.bound_later}
        self.settled = self.bound - loose
        self._reads = _closed(statements, self.settled, lambda s: s.later)
        self._tried = frozenset(tried)
        self._touches = _closed(statements, self.settled, lambda s: s.touched_later, without=self._tried)
        self._parent: dict[str, str] = {}
        for statement in statements:
            shared = [n for n in self.changed_by(statement) | statement.binds if n in self.bound and n not in self.settled]
            for name in shared[1:]:
                self._parent[self._group(name)] = self._group(shared[0])

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
        return hit | (statement.stores & wanted) | (changed & wanted - self.settled)

    def _group(self, name: str) -> str:
        while (above := self._parent.get(name, name)) != name:
            self._parent[name] = self._parent.get(above, above)
            name = above
        return name


def _changed_definitions(statements: Sequence[Statement], loose: Collection[str]) -> set[str]:
    """Return the classes and functions that a notebook may change: through functions, what they gave, decorators, subclasses."""
    nodes = [s.node for s in statements]
    defined = {node.name for node in nodes if isinstance(node, Definition)}
    changing = changing_functions([node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)])
    found = {name for s in statements for function, name in s.handed if function in changing}
    found |= {name for s in statements for name in s.signs_up} | changed_results(nodes)
    found &= defined
    while True:  # a class shares what its bases keep
        more = {s.node.name for s in statements if isinstance(s.node, ast.ClassDef) and s.bases & (found | set(loose)) & defined}
        if more <= found:
            return found
        found |= more


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
