"""Cells that try a flow out on what it reads: they stay behind, with a word on it, unless they certainly change that."""

from __future__ import annotations

import pytest

from nbllm.export import ExportRefused
from tests.export.making import kept, sliced

HEAD = "from nbllm import ask, flow"
FLOW = "@flow\ndef f(x: str) -> str:\n    return ask(f'{EX} {x}').text"
DICTS = "EX = [{'t': 'a', 'label': 'x'}]"
WORDS = "EX = 'a b c'.split()"
FRAME = "import pandas as pd\nEX = pd.DataFrame({'text': ['a']})"
POOLS = "from concurrent.futures import ThreadPoolExecutor"
TRIALS = (
    (DICTS, "f(EX[0]['t'])"),
    (DICTS, "[f(one['t']) for one in EX]"),
    (DICTS, "for one in EX:\n    print(f(one['t']))"),
    ("import json\nEX = json.loads('[]')", "f(EX[0]['t'])"),
    (WORDS, "f(EX[0])"),
    (WORDS, "out = []\nfor one in EX:\n    out.append(f(one))"),
    (WORDS, "answers = {one: f(one) for one in EX}"),
    (
        WORDS,
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n    found = list(pool.map(f, EX))",
    ),
    (FRAME, "EX.text.map(f)"),
    (FRAME, "for _, row in EX.iterrows():\n    print(f(row.text))"),
    ("ALL = [{'t': 1}, {'t': 2}]\nEX, TEST = ALL[:1], ALL[1:]", "[f(one['t']) for one in TEST]"),
)
CHANGES = (
    (WORDS, "EX.append(f('x'))"),
    (WORDS, "EX += [f('x')]"),
    (WORDS, "EX[0] = f('x')"),
    (DICTS, "for one in EX:\n    one['label'] = f(one['t'])"),
    (FRAME, "EX['label'] = EX.text.map(f)"),
    (WORDS + "\nB = EX", "B.append(f('x'))"),
    (WORDS + "\nout = EX", "for one in list(EX):\n    out.append(f(one))"),
)


@pytest.mark.parametrize(("made", "tried"), TRIALS)
def test_a_trial_stays_behind(made: str, tried: str) -> None:
    """Evaluating a flow on its own examples is what notebooks are for: no reason to refuse it."""
    assert kept(HEAD, made, FLOW, tried) == [2, 3]
    assert any(note.startswith("Cell 4, line ") and "as a trial" in note for note in sliced(HEAD, made, FLOW, tried).notes)


@pytest.mark.parametrize(("made", "changed"), CHANGES)
def test_an_answer_that_is_kept_in_what_the_flow_reads_is_refused(made: str, changed: str) -> None:
    """The flow needs it, and a service would buy it at each start."""
    with pytest.raises(ExportRefused) as refused:
        sliced(HEAD, made, FLOW, changed)
    assert {one.kind for one in refused.value.refusals} == {"buys at start"}


def test_settings_beside_code() -> None:
    """Lines of %llm_config and %llm_budget are no reason to refuse a cell that the flow needs: the settings file has them."""
    assert kept(HEAD, "%llm_config model=sim/small\n%llm_budget day 5\nEX = 'dry'", FLOW) == [2, 3]
