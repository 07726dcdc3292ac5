"""A service goes on with answers of every kind as the notebook did: tool calls, embeddings, several answers to one question."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.service.recorded import recorded_runs
from nbllm.service.replay import app_runs, parity
from tests.export.exporting import exported
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


def test_a_result_that_says_where_it_came_from(tmp_path: Path) -> None:
    """An example's result is that of a first run, so a first run of the service is held against it."""
    recordings = recorded(tmp_path, SOURCES, ("'a'",))
    done = exported(tmp_path / "app", *SOURCES, flow="f", recordings=recordings, examples=["all"])
    report = parity(done.out, app_runs(done.out))
    assert (report.ok, report.runs) == (True, 1)
