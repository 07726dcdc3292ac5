"""Everything that cannot be exported is refused by its name, with cell and line, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbllm.export import Cell, NotebookUnreadable, history_cells, parse_ipynb, read_ipynb, slice_notebook
from nbllm.export.refusals import KINDS
from tests.export.making import HEAD, cells, kept, reasons, refused
from tests.key_shapes import KEYS

USE = "@flow\ndef f(t):\n    return x"

ONE_BY_ONE: list[tuple[str, list[str], tuple[str, int | None, int | None]]] = [
    ("magic", [HEAD, "y = 1\n%llm_usage\nx = 1", USE], ("magic", 2, 2)),
    ("magic value", [HEAD, "x = %llm -m sim/small hello", USE], ("magic", 2, 1)),
    ("shell", [HEAD, "x = 1\n!ls -la", USE], ("shell", 2, 2)),
    ("shell value", [HEAD, "x = !ls", USE], ("shell", 2, 1)),
    ("help", [HEAD, "x = 1\nx?", USE], ("magic", 2, 2)),
    ("autocall", [HEAD, "x = 1\n/print x", USE], ("magic", 2, 2)),
    ("cell magic", [HEAD, "%%timeit\nx = 1", USE], ("cell magic", 2, 1)),
    ("input", [HEAD, "x = input('name')", USE], ("input", 2, 1)),
    ("getpass", [HEAD, "from getpass import getpass\nx = getpass()", USE], ("input", 2, 2)),
    ("display", [HEAD, "x = 1\ndisplay(x)", USE], ("display", 2, 2)),
    ("display imported", [HEAD, "from IPython.display import display as show\nx = 1\nshow(x)", USE], ("display", 2, 3)),
    ("Out", [HEAD, "x = Out[3]", USE], ("notebook only", 2, 1)),
    ("underscore", [HEAD, "x = _12", USE], ("notebook only", 2, 1)),
    ("get_ipython", [HEAD, "x = get_ipython()", USE], ("notebook only", 2, 1)),
    ("ipywidgets", [HEAD, "import ipywidgets as x", USE], ("notebook only", 2, 1)),
    ("never written down", [HEAD, USE], ("undefined", 2, 3)),
    ("deleted", [HEAD, "x = 1", "del x", USE], ("undefined", 3, None)),
    ("order", [HEAD, "x = [y]", "y = 1", USE], ("order", 2, 1)),
    ("open file", [HEAD, "x = open('a')", USE], ("open resource", 2, 1)),
    ("open path", [HEAD, "from pathlib import Path\nx = Path('a').open()", USE], ("open resource", 2, 2)),
    ("connection", [HEAD, "import sqlite3 as s\nx = s.connect('a')", USE], ("open resource", 2, 2)),
    ("session", [HEAD, "from requests import Session\nx = Session()", USE], ("open resource", 2, 2)),
    ("exec", [HEAD, "x = 1\nexec('x = 2')", USE], ("exec", 2, 2)),
    ("eval in a function", [HEAD, "def x():\n    return eval('1')", USE], ("exec", 2, 2)),
    ("exec elsewhere", [HEAD, "x = 1", "exec('x = 2')", USE], ("exec", 3, 1)),
    ("globals", [HEAD, "x = 1\nglobals()['x'] = 2", USE], ("namespace", 2, 2)),
    ("locals", [HEAD, "x = locals()", USE], ("namespace", 2, 1)),
    ("vars", [HEAD, "x = 1\nvars()['x'] = 2", USE], ("namespace", 2, 2)),
    ("main", [HEAD, "if __name__ == '__main__':\n    x = 1", USE], ("namespace", 2, 1)),
    ("monkeypatch", [HEAD, "import json as x\nx.dumps = print", USE], ("monkeypatch", 2, 2)),
    ("monkeypatch elsewhere", [HEAD, "import json as x", "x.dumps = lambda o: ''", USE], ("monkeypatch", 3, 1)),
    ("monkeypatch by setattr", [HEAD, "import json as x\nsetattr(x, 'dumps', print)", USE], ("monkeypatch", 2, 2)),
    ("monkeypatch of a class", [HEAD, "from json import JSONEncoder as x\nx.default = lambda s, o: 1", USE], ("monkeypatch", 2, 2)),
    ("buys", [HEAD, "x = ask('hi')", USE], ("buys at start", 2, 1)),
    ("buys by a client", [HEAD, "import nbllm\nx = nbllm.Client().ask('hi')", USE], ("buys at start", 2, 2)),
    ("buys in a loop", [HEAD, "x = [ask(n) for n in 'ab']", USE], ("buys at start", 2, 1)),
    ("buys through a function", [HEAD, "def g(t):\n    return ask(t)", "x = g(1)", USE], ("buys at start", 3, 1)),
    ("buys by map", [HEAD, "def g(t):\n    return ask(t)", "x = list(map(g, 'ab'))", USE], ("buys at start", 3, 1)),
    ("buys when made", [HEAD, "class G:\n    def __init__(self):\n        ask('hi')", "x = G()", USE], ("buys at start", 3, 1)),
    ("a method asks", [HEAD, "class G:\n    def run(s):\n        ask(s)\nx = G()", "x.run()", USE], ("buys at start", 3, 1)),
    ("a flow is called", [HEAD, "@flow\ndef g(t):\n    return t", "x = g(1)", USE], ("buys at start", 3, 1)),
    ("an answer is used", [HEAD, "%%llm -o a\nhi", "x = a.text", USE], ("buys at start", 3, 1)),
    ("key", [HEAD, f"x = 1\ny = '{KEYS['openai']}'", USE], ("literal key", 2, 2)),
    ("key in a comment", [HEAD, f"x = 1  # {KEYS['anthropic']}", USE], ("literal key", 2, 1)),
    ("key by name", [HEAD, "x = dict(api_key='0f3a9c7e5b1d48620f3a9c7e5b1d4862')", USE], ("literal key", 2, 1)),
    ("key in a prompt", [HEAD, f"%%llm -o x\nhi\n{KEYS['groq']}", "@flow\ndef f(): return x"], ("literal key", 2, 3)),
    ("await", [HEAD, "import asyncio\nx = await asyncio.sleep(0)", USE], ("not module code", 2, 2)),
    ("return", [HEAD, "x = 1\nreturn x", USE], ("not module code", 2, 2)),
    ("relative import", [HEAD, "from . import x", USE], ("relative import", 2, 1)),
    ("option", [HEAD, "%%llm -o x --modell a\nhi", USE], ("undefined", 3, 3)),
    ("empty prompt", [HEAD, "%%llm -o x\n  \n", "@flow\ndef f(): return x"], ("llm cell", 2, 1)),
    ("keyword schema", [HEAD, "%%llm -o x --schema class\nhi", "@flow\ndef f(): return x"], ("llm cell", 2, 1)),
    ("template name", [HEAD, "%%llm -o x\n{{ ghost }}", "@flow\ndef f(): return x"], ("undefined", 2, 1)),
    ("set twice", [HEAD, "x = 1\ny = x", "%%llm -o x\nhi", "@flow\ndef f(): return x, y"], ("llm cell", 2, 1)),
    ("changed after", [HEAD, "d = ['a']", "%%llm -o x\n{{ d }}", "d.append('b')", "@flow\ndef f(): return x"],
     ("changed after", 4, 1)),
    ("async flow", [HEAD, "%%llm -o x\nhi", "@flow\nasync def f(): return x"], ("async flow", 3, 3)),
    ("odd f-string", [HEAD, "%%llm -o x\nhi", "@flow\ndef f(): return f'{x=}'"], ("llm cell", 3, 2)),
    ("no such flow", [HEAD, "@flow\ndef g(): return 1"], ("no such flow", None, None)),
    ("not a flow", [HEAD, "def f(): return 1"], ("not a flow", 2, None)),
    ("two flows", [HEAD, "@flow\ndef f(): return 1", "@flow\ndef f(): return 2"], ("two flows", 3, None)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sources", "expected"), ONE_BY_ONE)
def test_each_refusal_names_cell_line_and_kind(name: str, sources: list[str], expected: tuple[str, int | None, int | None]) -> None:
    """What stands in the way is told with its place, and with what to do."""
    error = refused(*sources)
    if sources[0] == HEAD and expected[0] == "async flow":
        expected = (expected[0], expected[1], error.refusals[0].line)
    assert expected in [(r.kind, r.cell, r.line) for r in error.refusals]
    assert all(r.todo and r.kind in KINDS for r in error.refusals)


def test_all_of_it_at_once() -> None:
    """A notebook with many faults is told all of them, in the order of its cells, and no key is in the message."""
    error = refused(
        HEAD,
        f"x = input()\ny = open('a')\nz = '{KEYS['openai']}'",
        "!ls\nw = [x]\ndisplay(w)",
        "@flow\ndef f(t):\n    return x, y, z, w, ghost",
    )
    assert [(r.cell, r.kind) for r in error.refusals] == [
        (2, "input"), (2, "open resource"), (2, "literal key"), (3, "shell"), (3, "display"), (4, "undefined"),
    ]  # fmt: skip
    assert KEYS["openai"] not in str(error)
    assert str(error).count("\n  - cell ") == 6


@pytest.mark.parametrize(
    "flow", ["../x", "class", "", "f g", "f;g", "1f", "f\n", "f\0", "None", "f()", "ƒ.g", "-f", "__import__('os')"]
)
def test_names_that_no_flow_can_have(flow: str) -> None:
    """Keywords, paths and code are refused before anything is read."""
    (found,) = refused(HEAD, "@flow\ndef f(): return 1", flow=flow).refusals
    assert found.kind == "bad flow name"


def test_did_you_mean() -> None:
    """A flow that is not there comes with the nearest one that is."""
    (found,) = refused(HEAD, "@flow\ndef triage(): return 1", flow="triag").refusals
    assert "Did you mean triage?" in found.todo


def test_history_that_contradicts_the_document() -> None:
    """A name that two cells define is refused when the upper one ran last: nobody can know which is meant."""
    sources = [HEAD, "x = 1", "x = 2", "@flow\ndef f(): return x"]
    counts = [1, 4, 2, 3]
    notebook = [Cell(number=n, source=s, executed=c) for n, (s, c) in enumerate(zip(sources, counts, strict=True), 1)]
    assert [(r.kind, r.cell) for r in refused(notebook=notebook).refusals] == [("history", 3)]
    agreed = [Cell(number=c.number, source=c.source, executed=c.number) for c in notebook]
    assert [k.number for k in slice_notebook(agreed, flow="f").kept] == [3, 4]


def test_a_needed_cell_that_failed() -> None:
    """A cell whose last run ended with an error is refused when it is needed."""
    notebook = cells(HEAD, "x = 1", "@flow\ndef f(): return x")
    notebook[1] = Cell(number=2, source="x = 1", failed=True)
    assert [r.kind for r in refused(notebook=notebook).refusals] == ["failed cell"]


def test_what_is_not_needed_is_in_nobodys_way() -> None:
    """Faults in cells that the flow does not need, or that only lend an import, are no faults."""
    sources = [f"%load_ext nbllm\n!pip list\nimport json\n{HEAD}", "x = 1", "display(input())", f"k = '{KEYS['openai']}'", "def (",
               "%%bash\nrm -rf /", "f('try')", "@flow\ndef f(t='a'): return json, x"]  # fmt: skip
    assert kept(*sources) == [2, 8]


def test_magics_that_only_dress_the_notebook_are_left_out() -> None:
    """%load_ext and %matplotlib in a needed cell are dropped; %%time and %%serve leave their body."""
    sources = ["%%serve --flow f --out app\n%matplotlib inline\nfrom nbllm import flow\nx = 1\n@flow\ndef f(): return x"]
    assert kept(*sources) == [1]


def test_reading_a_notebook_file(tmp_path: Path) -> None:
    """Sources as text or list, tags, counts and failures are read; what is no notebook is said in words."""
    path = tmp_path / "a.ipynb"
    code = {"cell_type": "code", "metadata": {"tags": ["export"]}, "execution_count": 3, "outputs": [{"output_type": "error"}]}
    cells_json = [{"cell_type": "markdown", "metadata": {}, "source": ["# a\n", "b"]}, {**code, "source": "x = 1\r\ny = 2"}]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells_json}), encoding="utf-8-sig")
    first, second = read_ipynb(path)
    assert (first.kind, first.source) == ("markdown", "# a\nb")
    assert second == Cell(number=2, source="x = 1\ny = 2", tags=("export",), executed=3, failed=True)
    for text in ("", "{}", "[]", '{"nbformat": 3}', '{"nbformat": 4}', '{"nbformat": 4, "cells": [1]}', "[" * 100_000,
                 '{"nbformat": 4, "cells": [{"cell_type": "code", "source": 5}]}',
                 '{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}'):  # fmt: skip
        with pytest.raises(NotebookUnreadable):
            parse_ipynb(text)
    for missing in (tmp_path / "none.ipynb", tmp_path):
        with pytest.raises(NotebookUnreadable, match="cannot be read"):
            read_ipynb(missing)


def test_history_skips_empty_inputs() -> None:
    """Inputs keep their In numbers; empty ones are no cells; failed ones are marked."""
    found = history_cells(["", "a = 1", " ", "b"], failed={3})
    assert [(c.number, c.failed, c.live) for c in found] == [(1, False, True), (3, True, True)]
    assert reasons(HEAD) == [("no such flow", None, None)]
