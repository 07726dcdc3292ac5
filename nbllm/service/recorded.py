"""Recorded runs of flows, and a provider that answers what was recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.core.messages import Chat, Request
from nbllm.core.ports import Recording, Wire
from nbllm.core.recorded import Own, runs_of
from nbllm.redaction import redact
from nbllm.service.parity import CallTrace, RunTrace
from nbllm.testing import FakeProvider

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
    return CallTrace(models=None, asked=asked, answer={"text": call.get("text", "")}, books={"rung": rung} if rung else {})


def recorded_runs(recordings: Iterable[Recording], flows: Iterable[str]) -> list[RecordedRun]:
    """Return the recorded runs of these flows that can be run again, oldest first, each set of arguments once (its newest run).

    A call within a flow within a flow belongs to the runs of both: whoever runs the outer one again runs the inner one too.
    """
    recordings = sorted(recordings, key=lambda r: r.started_at)
    beside = [one for one in recordings if one.flow is None and "messages" in one.prompt]
    around = {json.dumps(one.prompt["messages"], sort_keys=True, default=str): _told(one) for one in beside}
    by_arguments: dict[str, RecordedRun] = {}
    for run in runs_of(recordings, flows):
        if not run.problem:
            known = json.dumps([run.flow, run.arguments], sort_keys=True, default=str)
            calls = tuple(map(_told, run.calls))
            by_arguments[known] = RecordedRun(run.flow, run.arguments, calls, around=tuple(around.values())[-_MOST_AROUND:])
    return list(by_arguments.values())


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


def _told(one: Recording) -> Mapping[str, Any]:
    return {"prompt": one.prompt, "rung": one.model, "text": one.answer.get("text", "")}


class RecordedAnswers(FakeProvider):
    """Answers what was recorded for the same messages, else for the call of that number in the run, else "ok"; costs nothing."""

    def __init__(self) -> None:
        super().__init__(default=self._answer)
        self._run: RecordedRun | None = None
        self._at = 0

    def begin(self, run: RecordedRun) -> None:
        """From here on answer for this run."""
        self._run, self._at = run, 0

    def rung_of(self, request: Request, nth: int = 0) -> str | None:
        """Return the model that answered these messages when they were asked for the nth time of the recorded run, from 0."""
        messages = plain_json(request.content.messages if isinstance(request.content, Chat) else ())
        same = _same(self._run.calls if self._run else (), messages)
        found = same[min(nth, len(same) - 1)] if same else {}
        return str(found.get("rung") or found.get("model") or "") or None

    def _answer(self, wire: Wire) -> str:
        messages = plain_json(wire.content.messages if isinstance(wire.content, Chat) else ())
        calls, around = (self._run.calls, self._run.around) if self._run else ((), ())
        beside, own = _text(_same(around, messages), wire.rung.id), _text(_same(calls, messages), wire.rung.id)
        if beside is not None and own is None:
            return beside or "ok"
        number, self._at = self._at, self._at + 1
        return (own if own is not None else str(calls[number].get("text", "")) if number < len(calls) else "") or "ok"


def _same(calls: Sequence[Mapping[str, Any]], messages: Any) -> list[Mapping[str, Any]]:
    """Return the recorded calls with the same messages."""
    wanted = redact(json.dumps(messages))
    return [call for call in calls if redact(json.dumps(plain_json(_messages_of(call)))) == wanted]


def _text(calls: Sequence[Mapping[str, Any]], rung: str) -> str | None:
    """Return what was recorded, of the same model where several have answered; None without any."""
    best = next((call for call in calls if call.get("rung") == rung), calls[0] if calls else None)
    return None if best is None else str(best.get("text", ""))


def _messages_of(call: Mapping[str, Any]) -> Any:
    return (call.get("prompt") or call).get("messages", [])


def plain_json(value: Any) -> Any:
    """Return a value as it is after a way through JSON."""
    return json.loads(json.dumps(value, default=str))
