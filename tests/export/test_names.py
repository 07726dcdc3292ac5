"""What a statement does to names, against Python's own symbol table."""

from __future__ import annotations

import ast
import symtable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.export.names import Statement
from nbllm.export.touching import statements_of
from tests.export.programs import statements


def one(source: str) -> Statement:
    """The first statement of a source."""
    return statements_of(ast.parse(source))[0]


def by_symtable(source: str) -> tuple[set[str], set[str]]:
    """Global names that are read and bound somewhere in a source, by Python's compiler."""
    read: set[str] = set()
    bound: set[str] = set()
    augmented = {
        n.target.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
    }
    todo = [symtable.symtable(source, "source", "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        for symbol in table.get_symbols():
            at_top = table.get_type() == "module"
            if symbol.get_name().startswith("."):
                continue
            used = symbol.is_referenced() or symbol.get_name() in augmented  # to the compiler, x += 1 is no reference
            if used and (at_top or symbol.is_global()):
                read.add(symbol.get_name())
            if (symbol.is_assigned() or symbol.is_imported()) and (at_top or symbol.is_declared_global()):
                bound.add(symbol.get_name())
    return read, bound


SCOPES = [
    "x = y",
    "x += y",
    "x[y] = z.a",
    "del x, y[z]",
    "def f(a, b=c, *d, e: g = h, **i) -> j:\n    k = a\n    return k, l, f",
    "def f():\n    global x\n    x = 1\n    y = x\n    def g():\n        nonlocal y\n        y = z\n    return g",
    "class A(B, metaclass=M):\n    x = y\n    def m(self):\n        return x, self\n    z = [x for x in w]",
    "class A:\n    global g\n    g = 1",
    "[a for a in b if c for d in a if (e := d)]",
    "{a: b for a, b in c}",
    "sum(x for x in y)",
    "lambda a, b=c: a + b + d",
    "def f():\n    return [y := x for x in z], y",
    "try:\n    a\nexcept B as e:\n    e\nelse:\n    c = e",
    "match a:\n case {'k': v, **rest}:\n  v\n case [x, *more] if x:\n  pass\n case C(d=D.e) as whole:\n  pass",
    "with a as b, c as (d, e):\n    f",
    "for i, (j, k) in l:\n    m = i\nelse:\n    n",
    "import a.b, c as d",
    "from a import b as c, d",
    "@deco(x)\nasync def f():\n    async for a in b:\n        await c\n    async with d as e:\n        pass",
    "x: y = z",
    "def f(x):\n    class A:\n        y = x\n        z = w\n    return A",
    "print(f'{a!r:>{b}} {c.d}')",
    "if (n := a) > 1:\n    b = n\nelif c:\n    d\nelse:\n    e",
    "while a:\n    break",
    "assert a, b",
    "raise A from b",
    "def f():\n    def g():\n        return x\n    x = 1\n    return g",
    "x = (yield_ := 3)",
    "def f():\n    import os.path\n    from a import b\n    return os, b, c",
    "def f():\n    try:\n        pass\n    except E as e:\n        return e",
    "def f():\n    for x in y:\n        del x",
]


@pytest.mark.parametrize("source", SCOPES)
def test_scopes_are_those_of_python(source: str) -> None:
    """Reads and bindings of global names are what the compiler's symbol table says they are."""
    found = one(source)
    read, bound = by_symtable(source)
    assert (found.now | found.later) - found.soft <= read <= found.now | found.later
    assert found.binds | found.bound_later == bound | found.deletes


@given(st.lists(statements(), min_size=1, max_size=4))
def test_generated_programs_have_the_scopes_of_python(parts: list[str]) -> None:
    """The same for programs that nobody wrote."""
    source = "\n".join(parts)
    every = statements_of(ast.parse(source))
    read, bound = by_symtable(source)
    assert {n for s in every for n in s.now | s.later} >= read
    assert {n for s in every for n in (s.now | s.later) - s.soft} <= read
    assert {n for s in every for n in s.binds | s.bound_later} - {n for s in every for n in s.deletes} <= bound


@pytest.mark.parametrize(
    ("source", "now", "later"),
    [
        ("def f(a=b):\n    return c", {"b"}, {"c"}),
        ("class A(B):\n    x = c\n    def m(self):\n        return d", {"B", "c"}, {"d"}),
        ("k = lambda x=a: b", {"a"}, {"b"}),
        ("g = (x for x in a if b)", {"a", "b"}, {"b"}),
        ("def f(x: 'Later') -> Now: pass", {"Now"}, {"Later"}),
        ("__all__ = ['f', 'not a name']", set(), {"f"}),
    ],
)
def test_now_and_later(source: str, now: set[str], later: set[str]) -> None:
    """What is read when the statement runs is told from what is read when its functions run."""
    assert (one(source).now, one(source).later) == (now, later)


@pytest.mark.parametrize(
    ("source", "touched"),
    [
        ("x.append(y)", {"x", "y"}),
        ("alias = x", {"x"}),
        ("alias = [x, y]", {"x", "y"}),
        ("x[0] = y", {"x", "y"}),
        ("x.a.b = 1", {"x"}),
        ("del x[0]", {"x"}),
        ("x += [1]", {"x"}),
        ("for i in x: pass", {"x"}),
        ("with x: pass", {"x"}),
        ("y in x", {"x", "y"}),
        ("print(x, len(x), f'{x}')", set()),
        ("x", set()),
        ("x.attribute[0]", set()),
        ("n = len(x)", set()),
        ("assert x == y", set()),
        ("f(x)", {"x"}),
        ("print(x, file=y)", {"y"}),
        ("if x: pass", set()),
        ("exec('x = 1')", {"*"}),
        ("globals()['x'] = 1", {"*"}),
    ],
)
def test_what_may_change(source: str, touched: set[str]) -> None:
    """Calls, stores and second names count as changes; looking does not."""
    assert one(source).touched == touched


def test_a_builtin_that_the_notebook_binds_is_no_builtin() -> None:
    """Where print is the user's own function, what it is given may be changed by it, and so may what it remembers."""
    (found,) = statements_of(ast.parse("print(x)"), rebound=frozenset({"print"}))
    assert found.touched == {"print", "x"}
