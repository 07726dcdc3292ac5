"""A service goes on with answers of every kind as the notebook did: tool calls, embeddings, several answers to one question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.cli import main
from nbllm.export import read_ipynb
from nbllm.service.recorded import recorded_runs
from nbllm.service.replay import app_runs, parity
from tests.export.exporting import exported, ipynb
from tests.export.kinds import REPLAYED, recorded
from tests.export.making import HEAD

pytestmark = pytest.mark.usefixtures("real_python")


@pytest.mark.parametrize("kind", REPLAYED)
def test_the_service_answers_as_recorded(tmp_path: Path, kind: str) -> None:
    """The examples that travel are replayed through the service: same questions, same answers."""
    sources, answers, calls = REPLAYED[kind]
    recordings = recorded(tmp_path, sources, ("'Do you ship to Oslo?'",), answers=answers())
    done = exported(tmp_path / "app", *sources, flow="f", recordings=recordings, examples=["all"])
    report = parity(done.out, app_runs(done.out))
    assert report.ok, "\n".join(line for one in report.differences for line in one.lines(report.names))
    assert (report.runs, report.calls) == (1, calls)


REMEMBERS = (
    "from functools import cache\n" + HEAD,
    "@cache\ndef said(t): return ask(t).text",
    "@flow\ndef f(q: str) -> str:\n    return said('fixed') + ask(q).text",
)


def test_what_a_flow_remembers_is_no_difference(tmp_path: Path) -> None:
    """A cached function asks once in the notebook and once in the service: the first time counts where the second differs."""
    recordings = recorded(tmp_path, REMEMBERS, ("'a'",), ("'b'",))
    done = exported(tmp_path / "app", *REMEMBERS, flow="f", recordings=recordings)
    report = parity(done.out, recorded_runs(recordings, ["f"]))
    assert report.ok, "\n".join(line for one in report.differences for line in one.lines(report.names))
    assert (report.runs, report.calls) == (2, 3)


SOURCES = (
    HEAD,
    "@flow\ndef f(q: str) -> dict[str, str]:\n    reply = ask(q)\n    return {'text': reply.text, 'from': reply.source}",
)


OPTIONS = (
    "from decimal import Decimal, getcontext\n" + HEAD,
    "getcontext().prec = 4",
    "@flow\ndef f(q: str) -> str:\n    return ask(f'{Decimal(2) / Decimal(7)} {q}').text",
    "@flow\nasync def g(q: str) -> str:\n    return f(q)",
)


@pytest.mark.parametrize("flow", ["f", "g"])
def test_options_that_hang_on_the_context(tmp_path: Path, flow: str) -> None:
    """What a cell sets of decimal or numpy holds in the replayed service as it does in `nbllm serve`."""
    recordings = recorded(tmp_path, OPTIONS[:3], ("'a'",))
    if flow == "g":
        recordings = [replace(one, flow={**(one.flow or {}), "name": "g"}) for one in recordings]
    done = exported(tmp_path / "app", *OPTIONS, flow=flow, recordings=recordings, examples=["all"])
    report = parity(done.out, app_runs(done.out))
    assert (report.ok, report.runs) == (True, 1), "\n".join(line for one in report.differences for line in one.lines(report.names))


def test_a_result_that_says_where_it_came_from(tmp_path: Path) -> None:
    """An example's result is that of a first run, so a first run of the service is held against it."""
    recordings = recorded(tmp_path, SOURCES, ("'a'",))
    done = exported(tmp_path / "app", *SOURCES, flow="f", recordings=recordings, examples=["all"])
    report = parity(done.out, app_runs(done.out))
    assert (report.ok, report.runs) == (True, 1)


NOTEBOOK = (
    HEAD,
    "%llm_config model=sim/large\n%llm_budget session 5.00 --soft 80%\n%llm_budget day 0.50",
    "from pathlib import Path\ntone = Path('tone.txt').read_text()",
    "@flow\ndef f(q: str) -> str:\n    return ask(tone + Path('tone.txt').read_text() + q).text",
)


def test_a_notebook_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells run where it lies, its amounts are the same however they are written, and what fails in a cell is a sentence."""
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "tone.txt").write_text("Be brief. ", encoding="utf-8")
    monkeypatch.chdir(folder)
    recordings = recorded(tmp_path, [cell for cell in NOTEBOOK if not cell.startswith("%")], ("'a'",))
    file = ipynb(folder / "nb.ipynb", *NOTEBOOK)
    made = {"recordings": recordings, "examples": ["all"], "include": ["tone.txt"], "folder": folder}
    assert exported(folder / "app", notebook=read_ipynb(file), flow="f", **made).examples == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "none"))
    assert main(["parity", "sub/app", "--notebook", "sub/nb.ipynb"]) == 0, capsys.readouterr().out
    assert Path.cwd() == tmp_path
    (folder / "tone.txt").unlink()
    assert main(["parity", "sub/app", "--notebook", "sub/nb.ipynb"]) == 1
    assert "The cells of nb.ipynb that f needs cannot be run: FileNotFoundError" in capsys.readouterr().err
