"""Recorded runs of flows: which are run again, and what is known of them to compare with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.core.ports import Recording
from nbllm.core.recorded import Own, retold, runs_of
from nbllm.service.parity import CallTrace, RunTrace

_MOST_AROUND = 200


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One recorded run of a flow: its arguments and its calls, as recordings keep them; result: where it is known.

    around: calls outside of any flow: a %%llm cell that was asked once for the whole notebook, a service asks in each run.
    """

    flow: str
    arguments: Mapping[str, Any]
    calls: tuple[Mapping[str, Any], ...]
    result: Any = None
    knows_result: bool = False
    around: tuple[Mapping[str, Any], ...] = ()

    def trace(self) -> RunTrace:
        """Return what is known of it, to compare with."""
        return RunTrace(
            flow=self.flow, arguments=self.arguments, calls=tuple(map(_recorded_trace, self.calls)), result=self.result,
            knows_result=self.knows_result,
        )  # fmt: skip

    def around_traces(self) -> tuple[CallTrace, ...]:
        """Return what is known of the calls outside of flows."""
        return tuple(map(_recorded_trace, self.around))


def _recorded_trace(call: Mapping[str, Any]) -> CallTrace:
    asked = dict(call.get("prompt") or {"messages": call.get("messages", [])})
    rung = call.get("rung") or call.get("model")
    answer = {"text": call.get("text", ""), "tool_calls": call.get("tool_calls")}
    return CallTrace(models=None, asked=asked, answer=answer, books={"rung": rung} if rung else {})


def is_embedding(call: Mapping[str, Any]) -> bool:
    """Whether a recorded call asked for vectors."""
    return "texts" in (call.get("prompt") or ())


def recorded_runs(recordings: Iterable[Recording], flows: Iterable[str]) -> list[RecordedRun]:
    """Return the recorded runs of these flows that can be run again, oldest first, each set of arguments once: its newest run.

    Where an older one asked the same and more, that one: its function keeps what it was told, and a new process asks as it did.
    A call within a flow within a flow belongs to the runs of both: whoever runs the outer one again runs the inner one too.
    """
    recordings = sorted(recordings, key=lambda r: r.started_at)
    beside = [one for one in recordings if one.flow is None and "messages" in one.prompt]
    around = {json.dumps(one.prompt["messages"], sort_keys=True, default=str): retold(one) for one in beside}
    by_arguments: dict[str, RecordedRun] = {}
    for run in runs_of(recordings, flows):
        if not run.problem:
            known = json.dumps([run.flow, run.arguments], sort_keys=True, default=str)
            calls = tuple(map(retold, run.calls))
            before = by_arguments.get(known)
            if before is None or not _asks(before.calls) > _asks(calls):
                by_arguments[known] = RecordedRun(run.flow, run.arguments, calls, around=tuple(around.values())[-_MOST_AROUND:])
    return list(by_arguments.values())


def _asks(calls: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return what calls ask, with how often."""
    return Counter(json.dumps(call["prompt"], sort_keys=True, default=str) for call in calls)


def runs_to_replay(
    own: Own, travelling: Sequence[RecordedRun], flows: Collection[str]
) -> tuple[list[RecordedRun], tuple[str, ...]]:
    """Return the runs of these flows that a notebook and its app are compared with, and what a person should know of that.

    own: the notebook's recordings; where these may be another notebook's, only the runs that travel with the app count, if any do.
    """
    travelling = [run for run in travelling if run.flow in flows]
    if travelling and not own.certain:
        return every_run(travelling), ()
    reasons = Counter((run.flow, run.problem) for run in runs_of(own.recordings, flows) if run.problem)
    notes = [f"Not replayed: {_runs(count)} of {flow}: {why}." for (flow, why), count in reasons.items()]
    return every_run(recorded_runs(own.recordings, flows), travelling), (*own.notes, *notes)


def every_run(*groups: Iterable[RecordedRun]) -> list[RecordedRun]:
    """Return the runs of several sources, each flow's set of arguments once; earlier groups win."""
    found: dict[str, RecordedRun] = {}
    for group in groups:
        for run in group:
            found.setdefault(json.dumps([run.flow, run.arguments], sort_keys=True, default=str), run)
    return list(found.values())


def _runs(count: int) -> str:
    return f"{count} recorded run{'' if count == 1 else 's'}"
