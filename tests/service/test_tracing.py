"""Runs that cost nothing and tell everything: async flows, streams, failures, recordings of several runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, Settings, aask, ask, flow, stream, use
from nbllm.replayed import RecordedAnswers
from nbllm.service.flow_specs import describe
from nbllm.service.parity import RunTrace, compare
from nbllm.service.recorded import RecordedRun, recorded_runs
from nbllm.service.tracing import TracingClient, run_here

MODEL = "sim/small"


@flow
async def both(text: str) -> list[str]:
    """Two calls at once."""
    replies = await asyncio.gather(*(aask(f"{n}: {text}", model=MODEL) for n in range(2)))
    return [reply.text for reply in replies]


@flow
def streamed(text: str) -> str:
    """One stream."""
    return "".join(stream(text, model=MODEL))


@flow
def fails(text: str) -> str:
    """A call, then an error of the flow's own."""
    ask(text, model=MODEL)
    raise LookupError(text)


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[tuple[TracingClient, RecordedAnswers]]:
    """A client whose models are recorded answers."""
    answers = RecordedAnswers()
    with TracingClient(Settings(), tmp_path / "home", answers) as client:
        yield client, answers


def run(name: str, calls: dict[str, str]) -> RecordedRun:
    """A recorded run with these messages and answers."""
    told = tuple(
        {"prompt": {"messages": [{"role": "user", "content": asked}]}, "rung": MODEL, "text": text} for asked, text in calls.items()
    )
    return RecordedRun(name, {"text": "x"}, told)


def twice(traced: Any, function: Any, recorded: RecordedRun) -> tuple[RunTrace, RunTrace]:
    """The traces of two runs."""
    client, answers = traced
    spec = describe(function)
    return run_here(spec, recorded, client, answers), run_here(spec, recorded, client, answers)


def test_an_async_flow_runs_with_recorded_answers_also_where_a_loop_runs(traced: Any) -> None:
    """Answers belong to their messages, whichever call comes first; the second run is all hits. A notebook has a loop already."""
    recorded = run("both", {"0: x": "zero", "1: x": "one"})

    async def in_a_notebook() -> tuple[RunTrace, RunTrace]:
        return twice(traced, both, recorded)

    first, second = asyncio.run(in_a_notebook())
    assert first.result == second.result == ["zero", "one"]
    assert [call.books["source"] for call in second.calls] == ["cache", "cache"]
    assert compare([recorded.trace()], [second], names=("recorded", "service")).ok


def test_a_stream_leaves_a_trace(traced: Any) -> None:
    """Of its whole answer, as a call has."""
    first, second = twice(traced, streamed, run("streamed", {"x": "a long answer"}))
    assert (first.result, second.result) == ("a long answer", "a long answer")
    assert [call.answer["text"] for call in second.calls] == ["a long answer"]
    assert second.calls[0].books["source"] == "cache"


def test_a_flow_that_raises_is_the_same_when_both_sides_do(traced: Any) -> None:
    """Its calls are compared, its error is no result; where one side has a result, that is a difference."""
    first, second = twice(traced, fails, run("fails", {"x": "y"}))
    assert first.error == second.error == "LookupError"
    assert compare([second], [second]).ok
    better = RunTrace(flow="fails", arguments={"text": "x"}, calls=second.calls, result="fine")
    assert not compare([second], [better]).ok


def test_runs_are_taken_from_recordings(tmp_path: Path) -> None:
    """By flow, each set of arguments once (its newest run), with the calls outside of flows around them."""
    with Client(home=tmp_path / "home", recordings=True, providers={"simulated": RecordedAnswers()}) as client, use(client):
        ask("outside", model=MODEL)
        for text in ("a", "b", "a"):
            streamed(text)
        found = recorded_runs(client.recordings.newest(50), ["streamed"])
    assert [one.arguments for one in found] == [{"text": "a"}, {"text": "b"}]
    assert all(len(one.calls) == 1 for one in found)
    assert [one["prompt"]["messages"][0]["content"] for one in found[0].around] == ["outside"]
