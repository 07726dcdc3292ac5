"""A slice gives the flow what the whole notebook gives it, and holds no more than it may need."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nbllm.export import Cell, history_cells, read_ipynb, render_flows, slice_notebook
from tests.export.making import HEAD, cells, kept, module_of, run, sliced
from tests.export.programs import names, statements

WORLD = """
class Hold:
    pass
hold = Hold()
hold.k = Hold()
hold.k.add = lambda: None
hold.a, hold.b, hold.c, hold.d = [1], [2], [3], [4]
stored = []
def store(x, y):
    stored.append(x)
    x.append(len(y))
def g(x=None):
    return None
hook = g
error = first = item = None
a, b, c, d = [1], [2], [3], [4]
"""


def result(namespace: dict[str, object]) -> str:
    """What the flow returns, or how it fails."""
    flow = namespace["f"]
    assert callable(flow)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return repr((flow(), flow()))
        except Exception as error:
            return repr(error)


@settings(max_examples=200)
@given(
    st.lists(st.lists(statements(), min_size=1, max_size=3).map("\n".join), min_size=1, max_size=9),
    st.lists(names(), min_size=1, max_size=2),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_a_slice_gives_what_the_notebook_gives(
    parts: list[str], read: list[str], calls: bool, live: bool, data: st.DataObject
) -> None:
    """Whatever cells bind, share, or change in place or through functions: the flow gives what it gives in the notebook."""
    flow = f"@flow\ndef f():\n    {'g()' if calls else 'pass'}\n    return repr([{', '.join(read)}])"
    at = data.draw(st.integers(0, len(parts)))
    sources = [HEAD, WORLD, *parts[:at], flow, *parts[at:]]
    whole: dict[str, object] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for source in sources:
            try:
                exec(source, whole)  # noqa: S102 - that is what is tested
            except (RecursionError, MemoryError, TypeError, IndexError, AttributeError, ValueError, NameError):
                assume(False)
    notebook = history_cells(sources) if live else cells(*sources)
    with contextlib.redirect_stdout(io.StringIO()):
        made = run(render_flows(slice_notebook(notebook, flow="f")))
    assert result(made) == result(whole)


FLOW = "@flow\ndef f(t):\n    return use(t)"


@pytest.mark.parametrize(
    ("name", "sources", "numbers"),
    [
        ("only what is needed", [HEAD, "x = 1", "y = 2", "def use(t):\n    return y", FLOW], [3, 4, 5]),
        ("changed in place", [HEAD, "x = []", "x.append(1)", "len(x)", "def use(t): return x", FLOW], [2, 3, 5, 6]),
        ("through a second name", [HEAD, "x = []", "y = x", "y.append(1)", "def use(t): return x", FLOW], [2, 3, 4, 5, 6]),
        ("through a function", [HEAD, "x = []", "def g(v): x.append(v)", "g(1)", "def use(t): return x", FLOW], [2, 3, 4, 5, 6]),
        ("through a global", [HEAD, "n = 0", "def inc():\n    global n\n    n = 1", "inc()", "def use(t): return n", FLOW],
         [2, 3, 4, 5, 6]),
        ("handed to a call", [HEAD, "import json", "x = {}", "json.dump(x, None)" , "def use(t): return x", FLOW], [3, 4, 5, 6]),
        ("looking is no change", [HEAD, "x = {}", "print(x)", "x", "assert x == {}", "def use(t): return x", FLOW], [2, 6, 7]),
        ("a literal cannot change", [HEAD, "x = 'text'", "print(x.upper())", "y = x", "def use(t): return x", FLOW], [2, 5, 6]),
        ("bound anew", [HEAD, "x = [1]", "x = [2]", "def use(t): return x", FLOW], [3, 4, 5]),
        ("perhaps bound anew", [HEAD, "x = [1]", "if ask:\n    x = [2]", "def use(t): return x", FLOW], [2, 3, 4, 5]),
        ("attributes of a class", [HEAD, "class K: n = 1", "K.n = 2", "def use(t): return K.n", FLOW], [2, 3, 4, 5]),
        ("defined below", [HEAD, FLOW, "def use(t): return y", "y = 1"], [2, 3, 4]),
        ("a star-import may be anything", [HEAD, "from os.path import *", "def use(t): return join('a', t)", FLOW], [2, 3, 4]),
        ("a seed", [HEAD, "import numpy as np", "np.random.seed(0)", "def use(t): return np.random.rand()", FLOW], [3, 4, 5]),
        ("tried out below", [HEAD, "def use(t): return t", FLOW, "f('x')", "r = [f(t) for t in 'ab']"], [2, 3]),
        ("a lambda that is called", [HEAD, "a = [1]", "a = (lambda: a + [2])()", "def use(t): return a", FLOW], [2, 3, 4, 5]),
        ("a decorator", [HEAD, "def deco(g): return g", "@deco\ndef use(t): return t", FLOW], [2, 3, 4]),
        ("a default", [HEAD, "n = [1]", "def use(t, n=n): return n", "n = [2]", FLOW], [2, 3, 5]),
        ("a default that is changed", [HEAD, "a = [1]", "def g(x=a): x.append(2)", "g()", "def use(t): return a", FLOW],
         [2, 3, 4, 5, 6]),
        ("deleted and made anew", [HEAD, "x = [1]", "del x", "x = [3]", "def use(t): return x", FLOW], [4, 5, 6]),
    ],
)  # fmt: skip
def test_which_cells_are_kept(name: str, sources: list[str], numbers: list[int]) -> None:
    """The cells that a flow needs, those that may change what it needs, and no others."""
    assert kept(*sources) == numbers


def test_the_user_has_the_last_word() -> None:
    """`#| export` and the tag keep a cell, `no-export` leaves one out, and the reason says so."""
    sources = [HEAD, "x = []", "#| export\nrare = 1", "x.append(1)\n", "x.append(2)", "@flow\ndef f(): return x"]
    notebook = cells(*sources)
    notebook[3] = Cell(number=4, source=sources[3], tags=("no-export",))
    notebook[4] = Cell(number=5, source="# about\n#| no-export\nx.append(2)")
    found = slice_notebook(notebook, flow="f")
    assert [(k.number, k.reason) for k in found.kept] == [
        (2, "defines x"), (3, "is marked for export"), (6, "defines the flow f"),
    ]  # fmt: skip


def test_history_counts_what_ran() -> None:
    """In a session the last run counts: a cell that ran twice changed twice, an edited function is the edited one."""
    inputs = [
        "",
        HEAD,
        "x = []",
        "@flow\ndef f(): return 'old', x",
        "x.append(1)",
        "x.append(1)",
        "@flow\ndef f(): return 'new', x",
        "f()",
    ]
    found = slice_notebook(history_cells(inputs), flow="f")
    assert [k.number for k in found.kept] == [2, 4, 5, 6]
    assert run(render_flows(found))["f"]() == ("new", [1, 1])


def test_imports_come_one_by_one_and_first() -> None:
    """Of an import cell only what is needed comes; sorted, merged, with its remark; a name bound twice keeps its place."""
    text = module_of(
        "%load_ext nbllm\nimport numpy as np, os, json  # data\nfrom nbllm import flow\nfrom nbllm import ask as a, Reply",
        "from os import path",
        "x = json.dumps(1)",
        "from math import sqrt as x",
        "@flow\ndef f() -> Reply:\n    import sys\n    return x(4), path",
    )
    assert (
        text.split('"""\n')[-1].split("# Cell")[0]
        == "\nfrom math import sqrt as x\nfrom os import path\n\nfrom nbllm import Reply, flow\n\n\n"
    )
    assert "# Cell 3" not in text
    text = module_of(HEAD, "import json  # data", "x = json.dumps(1)", "y = x", "from math import sqrt as x",
                     "@flow\ndef f():\n    return x(4), y")  # fmt: skip
    assert text.index("import json  # data") < text.index("x = json") < text.index("y = x") < text.index("from math")
    assert run(text)["f"]() == (2.0, "1")


def test_an_import_that_was_prepared_keeps_its_place() -> None:
    """What sets an environment variable or sys.path before a foreign import stays before it; the standard library goes first."""
    text = module_of(
        HEAD, "import os, sys\nos.environ['A'] = '1'\nimport numpy\nimport json", "@flow\ndef f(): return os, json, numpy"
    )
    assert text.index("import json") < text.index("environ") < text.index("import numpy")


def test_the_same_bytes_twice() -> None:
    """Exporting twice gives the same text, whatever the order of sets is."""
    sources = [HEAD, *[f"import json as m{i}, os.path\nv{i} = [m{i}]" for i in range(20)],
               "@flow\ndef f(): return " + ", ".join(f"v{i}" for i in range(20))]  # fmt: skip
    assert len({module_of(*sources) for _ in range(5)}) == 1


def test_settings_and_files_are_told() -> None:
    """What a module cannot hold is told: settings made by magics, files that are read."""
    found = sliced(HEAD, "%llm_config deadline_s=5", "from pathlib import Path\ntext = Path('data/a.txt').read_text()",
                   "@flow\ndef f(): return text")  # fmt: skip
    assert ["settings.toml" in note for note in found.notes] == [True]
    assert [(one.cell, one.path) for one in found.files] == [(3, "data/a.txt")]


@pytest.mark.parametrize(
    "tried",
    [
        'tickets = ["a"]\n[triage(t) for t in tickets]',
        'for t in ["a", "b"]:\n    print(triage(t))',
        'tickets = ["a"]\nfirst = triage(tickets[0])',
        'answers = {t: triage(t) for t in ("a", "b")}\nanswers.update(c=triage("c"))',
    ],
)
def test_a_cell_that_tries_the_flow_out_is_not_kept(tried: str) -> None:
    """What is handed to a flow in a cell below it, in a loop too, does not make that cell one that the flow needs."""
    above = 'from nbllm import ask, flow\nQUEUES = ["billing", "hardware"]'
    body = '@flow\ndef triage(t: str) -> str:\n    return ask(f"{chr(44).join(QUEUES)} {t}").text'
    found = slice_notebook(cells(above, body, tried), "triage")
    assert [kept.number for kept in found.kept] == [1, 2]


def test_the_notebook_about_services_can_be_exported_from_its_file() -> None:
    """All of its cells are there, those that call the flow, the service and the gateway too; three are what the flow needs."""
    found = slice_notebook(read_ipynb(Path(__file__).resolve().parents[2] / "notebooks" / "02_to_a_service.ipynb"), "triage")
    assert [kept.reason for kept in found.kept] == ["defines QUEUES, Triage, policy", "asks for rules", "defines the flow triage"]


def test_a_default_that_calls_share_is_noted() -> None:
    """A list as a default is copied for each run of the flow; of another function a person is told, since all share it."""
    found = sliced(
        HEAD, "def helper(x, seen={}, *, also=set(), n=3, t=()):\n    return seen", "def unused(x=[]): pass",
        "@flow\ndef f(a, found=[y for y in 'ab']):\n    return helper(a)",
    )  # fmt: skip
    assert [note.partition(";")[0].partition(",")[0] for note in found.notes] == [
        "Cell 2: helper(seen=...) has a dict as its default",
        "Cell 2: helper(also=...) has a set as its default",
        "Cell 4: f(found=...) has a list as its default",
    ]
    assert "share" in found.notes[0]
    assert "of its own" in found.notes[2]
