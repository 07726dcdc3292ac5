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
ADDS = WORDS + "\ndef add(t):\n    EX.append(t)\n\ndef add_twice(t):\n    add(t)\n    add(t)"
ENRICH = DICTS + "\ndef enrich(one):\n    one['sum'] = ask(one['t']).text"
KEPT = "EX = {}\ndef remember(one):\n    EX[one] = ask(one).text"
LEARNS = """class Bot:
    def __init__(self): self.said = []
    def learn(self, t): self.said.append(t)
    def ask_it(self, t): self.said.append(ask(t).text)
EX = Bot()"""
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
    (DICTS + "\ndef evaluate():\n    return [f(one['t']) for one in EX]", "evaluate()"),
    (FRAME, "for _, row in EX.iterrows():\n    print(f(row.text))"),
    ("ALL = [{'t': 1}, {'t': 2}]\nEX, TEST = ALL[:1], ALL[1:]", "[f(one['t']) for one in TEST]"),
)
CHANGES = (
    (WORDS, "EX.append(f('x'))"),
    (WORDS, "EX += [f('x')]"),
    (WORDS, "EX[0] = f('x')"),
    (DICTS, "for one in EX:\n    one['label'] = f(one['t'])"),
    (DICTS, "for n in range(1):\n    one = EX[n]\n    one['label'] = f(one['t'])"),
    (FRAME, "EX['label'] = EX.text.map(f)"),
    (WORDS + "\nB = EX", "B.append(f('x'))"),
    (ADDS, "for one in ['k']:\n    add(one)\n    print(f('x'))"),
    (ADDS, "with open('x') as file:\n    add_twice('k')\n    f(file.read())"),
    (WORDS + "\ndef keeps(t):\n    EX.append(t)\n    return ask(t).text", "print(keeps('x'))"),
    (ENRICH, "for one in EX:\n    enrich(one)"),
    (ENRICH, "list(map(enrich, EX))"),
    (ENRICH, "enrich(EX[0])"),
    (ENRICH, f"{POOLS}\nwith ThreadPoolExecutor() as pool:\n    pool.map(enrich, EX)"),
    (KEPT, f"{POOLS}\nwith ThreadPoolExecutor() as pool:\n    pool.map(remember, ['a'])"),
    (KEPT, "if not EX:\n    remember('a')"),
    (LEARNS, "for one in 'ab':\n    EX.learn(one)\n    print(f(one))"),
    (LEARNS, "EX.ask_it('a')"),
    (WORDS + "\nout = EX", "for one in list(EX):\n    out.append(f(one))"),
)


LOOKS = (
    ("results = []\nfor one in EX:\n    results.append({'x': one, 'out': f(one)})", "import pandas as pd\npd.DataFrame(results)"),
    ("rows = [(one, f(one)) for one in EX]", "import pandas as pd\ndf = pd.DataFrame(rows)\ndf.head()"),
    ("preds = [f(one) for one in EX]", "for one, pred in zip(EX, preds):\n    print(one, pred)"),
    ("preds = [f(one) for one in EX]", "right = sum(pred == one for one, pred in zip(EX, preds))\nprint(right / len(EX))"),
    ("right = 0\nfor one in EX:\n    right += f(one) == one", "print(right)"),
)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("tried", "looked"), LOOKS)
def test_what_looks_at_answers_stays_behind(tried: str, looked: str, together: bool) -> None:
    """In the cell of the trial and in one of its own: neither is a reason to refuse."""
    rest = [f"{tried}\n{looked}"] if together else [tried, looked]
    assert kept(HEAD, "EX = ['b', 'a']\nEX.sort()", FLOW, *rest) == [2, 3]


@pytest.mark.parametrize("late", ["EX.append(preds[0])", "EX += preds", "EX = preds", "for one in preds:\n    EX.append(one)"])
def test_answers_that_go_into_what_the_flow_reads_are_refused(late: str) -> None:
    """Also by way of a name: the flow needs them."""
    with pytest.raises(ExportRefused):
        sliced(HEAD, "EX = ['b', 'a']", "preds = [ask(one).text for one in EX]", late, FLOW)


@pytest.mark.parametrize(("made", "tried"), TRIALS)
def test_a_trial_stays_behind(made: str, tried: str) -> None:
    """Evaluating a flow on its own examples is what notebooks are for: no reason to refuse it."""
    assert kept(HEAD, made, FLOW, tried) == [2, 3]
    assert any("Left out as trials" in note and "cell 4, line " in note for note in sliced(HEAD, made, FLOW, tried).notes)


@pytest.mark.parametrize(("made", "changed"), CHANGES)
def test_an_answer_that_is_kept_in_what_the_flow_reads_is_refused(made: str, changed: str) -> None:
    """The flow needs it, and a service would buy it at each start."""
    with pytest.raises(ExportRefused) as refused:
        sliced(HEAD, made, FLOW, changed)
    assert {one.kind for one in refused.value.refusals} == {"buys at start"}


def test_settings_beside_code() -> None:
    """Lines of %llm_config and %llm_budget are no reason to refuse a cell that the flow needs: the settings file has them."""
    assert kept(HEAD, "%llm_config model=sim/small\n%llm_budget day 5\nEX = 'dry'", FLOW) == [2, 3]
