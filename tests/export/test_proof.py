"""The proof: a clean process imports the module without network, and recorded runs ask the same again."""

from __future__ import annotations

from pathlib import Path

import pytest

import nbllm
from nbllm.export import prove, render_flows
from nbllm.export.places import Places
from nbllm.export.proof_refusals import proof_refusals
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client
from tests.export.exporting import refused
from tests.export.making import HEAD, run, sliced

pytestmark = pytest.mark.usefixtures("real_python")

SOURCES = [HEAD, "rules = ['short']", "%%llm -o facts\nFacts on {{ rules }}",
           "@flow\ndef f(t, *more, n=1):\n    return ask(f'{facts.text} {t} {more} {n}').text"]  # fmt: skip


def test_recorded_runs_ask_the_same(tmp_path: Path) -> None:
    """What a run asked when it was recorded is what the slice asks, %%llm cell included; a changed prompt is shown."""
    found = sliced(*SOURCES)
    fake = FakeProvider("a fact", "an answer", "b fact", "b answer")
    with fake_client(tmp_path / "home", fake, recordings=True, cache="off") as client, nbllm.use(client):
        flow = run(render_flows(found))["f"]
        assert (flow("T", "U", n=3), flow("V")) == ("an answer", "b answer")
        recordings = client.recordings.newest(10)
    proof = prove(found, recordings)
    assert (proof.problems, proof.runs, proof.ok) == ((), 2, True)
    changed = prove(sliced(HEAD, "rules = ['long']", *SOURCES[2:]), recordings)
    assert not changed.ok
    assert "Facts on ['short']" in changed.problems[0]
    assert "Facts on ['long']" in changed.problems[0]


def test_a_route_that_chooses_is_followed_as_recorded(tmp_path: Path) -> None:
    """A flow that looks at who answered gets, in the proof, the model that had answered: not the route's first."""
    found = sliced(HEAD, "@flow\ndef f(t):\n    reply = ask(t, model='judged')\n    return [reply.rung, reply.text]")
    judged = {
        "strategy": "cascade",
        "models": ["sim/small", "sim/large"],
        "accept": "valid",
        "check": lambda text: "no" not in text,
    }
    settings = {"routes": {"judged": judged}, "model": "sim/small"}
    fake = FakeProvider("yes", "no", "from large")
    with fake_client(tmp_path / "home", fake, recordings=True, cache="off", **settings) as client, nbllm.use(client):
        flow = run(render_flows(found))["f"]
        assert [flow("sure"), flow("doubt")] == [["sim/small", "yes"], ["sim/large", "from large"]]
        proof = prove(found, client.recordings.newest(10), settings=client.settings)
    assert (proof.problems, proof.runs) == ((), 2)
    assert sorted(proof.results.values()) == [["sim/large", "from large"], ["sim/small", "yes"]]


def test_what_fails_at_import_is_a_problem(tmp_path: Path) -> None:
    """A module that reaches for the network, asks, exits, fails or waits for ever is not proved, and the reason says so."""
    use = "@flow\ndef f(): return x"
    network = prove(sliced(HEAD, "import socket\nx = [socket.create_connection(('192.0.2.1', 80), 1).fileno()]", use))
    assert "NetworkBlocked" in network.problems[0]
    asks = prove(sliced(HEAD, "import nbllm as n\nx = [getattr(n, 'a' + 'sk')('hi').text]", use))
    assert "asks a model once" in asks.problems[0]
    leaves = prove(sliced(HEAD, "import sys\nx = [1]\nsys.exit(3)", use))
    assert "SystemExit" in leaves.problems[0]
    fails = prove(sliced(HEAD, "x = [1 / 0]", use))
    assert "ZeroDivisionError" in fails.problems[0]
    dies = prove(sliced(HEAD, "import os\nx = [os._exit(5)]", use))
    assert "exit code 5" in dies.problems[0]
    waits = prove(sliced(HEAD, "import time\nx = [time.sleep(60)]", use), limit_s=2.0)
    assert "longer than 2 s" in waits.problems[0]


HIDDEN = {
    "in a lambda": "x = list(map(lambda t: one(t), ['a', 'b']))",
    "under another name": "x = []\nfor call in (one, str):\n    x.append(call('a'))",
    "in a thread": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
    "    x = list(pool.map(lambda t: one(t), ['a', 'b']))",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_what_asks_at_import_is_told_with_its_cell(tmp_path: Path, how: str) -> None:
    """However the call is hidden: nobody can tag a cell that is not named."""
    sources = (HEAD, "def one(t):\n    return ask(t).text", HIDDEN[how], "@flow\ndef f(t: str) -> str:\n    return one(f'{x} {t}')")
    error = refused(tmp_path / "app", *sources, flow="f")
    (told,) = [one for one in error.refusals if "asks a model" in one.reason]
    assert (told.cell, told.line) == (3, len(HIDDEN[how].splitlines()))
    assert "no-export" in told.todo


def test_the_process_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of this session reaches the process; files are found where the notebook lies."""
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    monkeypatch.setenv("SOME_API_KEY", "not for others")
    found = sliced(HEAD, "import os\nfrom pathlib import Path\nx = [Path('a.txt').read_text()]\n"
                       "assert 'SOME_API_KEY' not in os.environ",
                       "@flow\ndef f(): return x")  # fmt: skip
    assert prove(found, folder=tmp_path).ok
    proof = prove(found)
    assert "FileNotFoundError" in proof.problems[0]
    (refusal,) = proof_refusals(proof, Places(found, render_flows(found), []), ["."])
    assert refusal.todo == "Take the file along: --include a.txt"
