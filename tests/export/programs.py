"""Programs that nobody wrote, for Hypothesis: statements over few names, so that they get in each other's way."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d")


def names() -> st.SearchStrategy[str]:
    """One of the few names."""
    return st.sampled_from(NAMES)


def expressions() -> st.SearchStrategy[str]:
    """An expression over the names. Every name is a list of numbers or lists."""
    plain = st.one_of(names(), st.integers(0, 9).map(lambda n: f"[{n}]"))
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda p: f"[{p[0]}, {p[1]}]"),
            st.tuples(inner, inner).map(lambda p: f"({p[0]} + {p[1]})"),
            inner.map(lambda e: f"[{e}][0]"),
            inner.map(lambda e: f"[i for i in {e}]"),
            inner.map(lambda e: f"(lambda x=0: {e})()"),
            st.tuples(names(), inner).map(lambda p: f"[{p[0]} for {p[0]} in {p[1]}]"),
            names().map(lambda e: f"f'{{{e}}}'.split()"),
        ),
        max_leaves=3,
    )


def statements() -> st.SearchStrategy[str]:
    """One statement: bindings, second names, changes in place, loops, conditions, functions that do so later."""
    n, e = names(), expressions()
    pairs = st.tuples(n, e)
    simple = st.one_of(
        pairs.map(lambda p: f"{p[0]} = {p[1]}"),
        pairs.map(lambda p: f"{p[0]}.append({p[1]})"),
        pairs.map(lambda p: f"{p[0]} += {p[1]}"),
        pairs.map(lambda p: f"{p[0]}[:1] = {p[1]}"),
        pairs.map(lambda p: f"if {p[1]}: {p[0]} = [len({p[0]})]"),
        pairs.map(lambda p: f"for item in list({p[1]}): {p[0]}.append(1)"),
        st.tuples(n, n, e).map(lambda t: f"{t[0]}, {t[1]} = {t[2]}, [5]"),
        pairs.map(lambda p: f"store({p[0]}, {p[1]})"),
        n.map(lambda x: f"hold.{x} = {x}"),
        n.map(lambda x: f"hold.{x}.append(7)"),
        pairs.map(lambda p: f"[{p[0]} := {p[1]}]"),
        pairs.map(lambda p: f"hook = lambda: {p[0]}.append({p[1]})"),
        st.just("hook()"),
        st.just("g()"),
        n.map(lambda x: f"print({x}, len({x}))"),
        n.map(lambda x: f"try:\n    {x} = {x}[99]\nexcept IndexError as error:\n    {x} = [str(error)]"),
        n.map(lambda x: f"match {x}:\n    case [first, *b]:\n        {x}.append(2)\n    case _:\n        pass"),
    )
    function = st.one_of(
        pairs.map(lambda p: f"def g():\n    global {p[0]}\n    {p[0]} = {p[1]}"),
        pairs.map(lambda p: f"def g(x={p[0]}):\n    x.append({p[1]})"),
        pairs.map(lambda p: f"def g():\n    {p[0]}.append({p[1]})\n    return {p[0]}"),
        st.tuples(n, n, e).map(
            lambda t: f"def g():\n    {t[0]} = {t[2]}\n    def inner():\n        {t[0]}.append({t[1]})\n    inner()"
        ),
        n.map(lambda x: f"class K:\n    kept = {x}\n    def add(self):\n        {x}.append(3)\nhold.k = K()"),
        st.just("hold.k.add()"),
    )
    return st.one_of(simple, simple, function)
