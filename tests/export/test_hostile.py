"""Hostile names and cells: an export holds the user's code and nothing else, or it is refused."""

from __future__ import annotations

import ast
import random
import time

import pytest

from nbllm.export import Cell, ExportRefused, render_flows, slice_notebook
from nbllm.export.lexer import read_code
from tests.export.hostile import CELLS, FLOW_NAMES
from tests.export.making import HEAD, cells

FLOW = "@flow\ndef f():\n    return y.text, x"


def exported(source: str) -> str | None:
    """The module of a notebook with that cell marked for export, None when it is refused."""
    notebook = [
        *cells(HEAD, "x = 0", "%%llm -o y\nhi"),
        Cell(number=4, source=source, tags=("export",)),
        Cell(number=5, source=FLOW),
    ]
    try:
        return render_flows(slice_notebook(notebook, flow="f"))
    except ExportRefused as error:
        return None if error.refusals else "refused without a reason"


def in_cell(source: str) -> set[str]:
    """Every statement of the user's cells and of what may stand around them, without positions."""
    code = read_code(source)
    called = FLOW.replace("y.text", "y().text")
    parts = [HEAD, "from nbllm import flow", "import nbllm", "from nbllm.flow_context import once_in_a_flow", "x = 0", called]
    trees = [ast.parse(part) for part in parts] + ([code.tree] if code.tree is not None else [])
    return {ast.dump(node) for tree in trees for node in tree.body}


def test_there_are_enough_of_them() -> None:
    """The list is as long as is promised."""
    assert len(set(CELLS)) + len(set(FLOW_NAMES)) > 1000


@pytest.mark.parametrize("part", range(8))
def test_no_code_that_is_not_the_users(part: int) -> None:
    """Each hostile cell is exported as it is or refused; beside it stand only imports, the header and the %%llm function."""
    done = 0
    for source in CELLS[part::8]:
        text = exported(source)
        if text is None:
            continue
        done += 1
        text.encode("utf-8")
        mine = in_cell(source)
        body = ast.parse(text).body[1:]
        others = [node for node in body if ast.dump(node) not in mine]
        assert all(isinstance(n, ast.FunctionDef) and n.name == "y" and len(n.decorator_list) == 1 for n in others), source
        assert compile(text, "flows.py", "exec")
    assert done > 20


def test_hostile_flow_names() -> None:
    """None of them is a flow, and the message is one that can be printed."""
    for name in FLOW_NAMES:
        with pytest.raises(ExportRefused) as caught:
            slice_notebook(cells(HEAD, FLOW), flow=name)
        assert caught.value.refusals[0].kind == "bad flow name", name
        str(caught.value).encode("utf-8")


def test_deep_nesting_is_refused_or_exported() -> None:
    """Cells that are nested too deeply for Python or for us are no crash."""
    for source in (
        "x = " + "(" * 500 + ")" * 500,
        "x = " + "-" * 3000 + "1",
        "x = " + "+".join("1" * 3000),
        "x = " + "[" * 90 + "]" * 90,
    ):
        exported(source)


def test_a_notebook_of_200_cells_takes_less_than_2_s() -> None:
    """Slice and text of a notebook of 200 cells that depend on each other."""
    chance = random.Random(1)
    sources = [HEAD]
    for number in range(198):
        earlier = [f"v{chance.randrange(number)}" for _ in range(3)] if number else ["1"]
        defined = f"v{number} = [{', '.join(earlier)}]\ndef g{number}(x):\n    return [v{number}, j{number}, x]"
        sources.append(f"import json as j{number}, os\n{defined}\n"
                       f"v{number}.append(g{number}(2))\nprint(v{number})")  # fmt: skip
    sources.append("@flow\ndef f(t):\n    return v190, g197(t)")
    started_s = time.process_time()
    found = slice_notebook(cells(*sources), flow="f")
    render_flows(found)
    assert time.process_time() - started_s < 2.0
    assert len(found.kept) > 100
