"""Programs that nobody wrote about classes and functions under many names: the flow sees them as the notebook does."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nbllm.export import render_flows, slice_notebook
from tests.export.making import HEAD, cells, run

WORLD = """
class A:
    n = 0
class B(A):
    pass
def g():
    return 0
g.n = 0
class Box:
    def __init__(self, inner): self.inner = inner
    def put(self, value): self.inner.n = value
def conf(x, value):
    here = x
    here.n = value
def both(*things): return list(things)
def pick(x, other=None): return x if other is None else other
a, b, c = A, B, g
"""
SHOWN = """
def n_of(x, deep=4):
    if isinstance(x, (list, tuple)):
        return [n_of(one, deep - 1) for one in x] if deep else None
    if isinstance(x, Box):
        return n_of(x.inner, deep - 1) if deep else None
    return getattr(x, "n", None)
"""
NAMES = st.sampled_from(["a", "b", "c", "A", "B", "g"])
VARIABLES = st.sampled_from(["a", "b", "c"])


def expressions() -> st.SearchStrategy[str]:
    """Something that may be a class, a function, an object, or hold one."""
    return st.recursive(
        NAMES,
        lambda inner: st.one_of(
            inner.map(lambda e: f"[{e}][0]"),
            st.tuples(inner, inner).map(lambda p: f"both({p[0]}, {p[1]})[1]"),
            st.tuples(inner, inner).map(lambda p: f"pick({p[0]}, other={p[1]})"),
            inner.map(lambda e: f"Box({e}).inner"),
            inner.map(lambda e: f"(lambda x: x)({e})"),
            inner.map(lambda e: f"{{'k': {e}}}.get('k')"),
            inner.map(lambda e: f"next(x for x in [{e}])"),
            inner.map(lambda e: f"({e} or g)"),
        ),
        max_leaves=3,
    )


def statements() -> st.SearchStrategy[str]:
    """One statement that gives a name to something, or sets its attribute."""
    e, k = expressions(), st.integers(1, 9)
    pairs = st.tuples(e, k)
    return st.one_of(
        st.tuples(VARIABLES, e).map(lambda p: f"{p[0]} = {p[1]}"),
        st.tuples(VARIABLES, e).map(lambda p: f"{p[0]} = Box({p[1]})"),
        st.tuples(VARIABLES, e, e).map(lambda p: f"{p[0]} = [{p[1]}, {p[2]}]"),
        st.tuples(VARIABLES, e).map(lambda p: f"{p[0]} = {p[1]}()"),
        pairs.map(lambda p: f"{p[0]}.n = {p[1]}"),
        pairs.map(lambda p: f"setattr({p[0]}, 'n', {p[1]})"),
        pairs.map(lambda p: f"type({p[0]}).n = {p[1]}"),
        pairs.map(lambda p: f"conf({p[0]}, {p[1]})"),
        pairs.map(lambda p: f"Box({p[0]}).put({p[1]})"),
        pairs.map(lambda p: f"list(map(conf, [{p[0]}], [{p[1]}]))"),
        pairs.map(lambda p: f"(lambda x: setattr(x, 'n', {p[1]}))({p[0]})"),
        st.tuples(e, e, k).map(lambda p: f"for x in both({p[0]}, {p[1]}):\n    x.n = {p[2]}"),
        st.tuples(VARIABLES, k).map(lambda p: f"{p[0]}[0].n = {p[1]}"),
        st.tuples(VARIABLES, k).map(lambda p: f"{p[0]}.inner.n = {p[1]}"),
        st.tuples(VARIABLES, e).map(lambda p: f"{p[0]}.append({p[1]})"),
    )


@settings(max_examples=300)
@given(st.lists(statements(), min_size=1, max_size=7), st.lists(NAMES, min_size=1, max_size=2))
def test_a_definition_is_what_it_is_in_the_notebook(parts: list[str], read: list[str]) -> None:
    """Whatever names classes and functions go by when their attributes are set: the flow reads what the notebook would."""
    sources = [HEAD, WORLD, *parts, SHOWN, f"@flow\ndef f():\n    return repr([n_of(x) for x in [{', '.join(read)}]])"]
    try:
        whole = run("\n".join(sources))
    except (AttributeError, TypeError, IndexError, KeyError):
        assume(False)
    assert run(render_flows(slice_notebook(cells(*sources), flow="f")))["f"]() == whole["f"]()
