"""Recorded runs of flows: which recorded calls are of which run, how it ended, and whose they are. Pure."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbllm.core.ports import Recording

MOST_KEPT_BYTES = 1_000_000
"""Vectors and log probabilities of an answer are recorded up to this size each: of a run without them nothing can be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One recorded run of a flow, with the calls of the flows that it called.

    calls: those that were answered, oldest first. arguments: as the service takes them. doubts: by the argument's name, why it
    could not be recorded as what it was. status: "done", "failed" or None: it has not ended, or its process died. opened: how many
    calls it made, embeddings and failed ones too; kept: how many of these are recorded.
    """

    flow: str
    run: str
    arguments: Mapping[str, Any]
    calls: tuple[Recording, ...]
    doubts: Mapping[str, str]
    status: str | None
    opened: int
    kept: int

    @property
    def problem(self) -> str:
        """Why it cannot be run again as it was, "" when it can."""
        if self.status != "done":
            return "it did not come to its end"
        if self.kept < self.opened:
            return f"{self.opened - self.kept} of its {self.opened} calls failed, or are not recorded any more"
        return "; ".join(f"its argument {name} {why}" for name, why in self.doubts.items()) or _lacking(self.calls)


def flows_of(recording: Recording) -> Sequence[Mapping[str, Any]]:
    """Return the flows that a call belongs to, the innermost first, () for none."""
    flow = recording.flow
    return () if flow is None else (flow, *(one for one in flow.get("outer", ()) if isinstance(one, Mapping)))


def with_ends(recording: Recording, ends: Mapping[str, Mapping[str, Any]]) -> Recording:
    """Return a recording with what is known of its flows' ends. ends: by the run's id."""
    if recording.flow is None or not any(str(one.get("run")) in ends for one in flows_of(recording)):
        return recording
    inner, *outer = ({**one, **_ended(one, ends)} for one in flows_of(recording))
    return replace(recording, flow={**inner, **({"outer": outer} if outer else {})})


def _ended(flow: Mapping[str, Any], ends: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    end = ends.get(str(flow.get("run")))
    return {} if end is None else {"ended": end}


def runs_of(recordings: Iterable[Recording], flows: Iterable[str]) -> list[Run]:
    """Return the recorded runs of these flows that asked a model, in the order in which they began.

    A call of a flow that another one calls belongs to the runs of both: whoever runs the outer one again runs the inner one too.
    """
    wanted = set(flows)
    told: dict[str, Mapping[str, Any]] = {}
    made: dict[str, list[Recording]] = {}
    for one in sorted(recordings, key=lambda r: r.started_at):
        for flow in reversed(flows_of(one)):
            if flow.get("name") in wanted:
                told.setdefault(key := str(flow.get("run")), flow)
                made.setdefault(key, []).append(one)
    return [run for key, flow in told.items() if (run := _run(flow, made[key])).calls]


def _run(flow: Mapping[str, Any], made: Sequence[Recording]) -> Run:
    end = flow.get("ended") or {}
    return Run(
        flow=str(flow["name"]),
        run=str(flow.get("run")),
        arguments=flow.get("arguments", {}),
        calls=tuple(one for one in made if "messages" in one.prompt or "texts" in one.prompt),
        doubts=flow.get("doubts", {}),
        status=end.get("status"),
        opened=end.get("calls", 0),
        kept=len(made),
    )


def _lacking(calls: Iterable[Recording]) -> str:
    """Say what of the answers was not kept, "" for nothing: with another answer a run may go on differently."""
    if any("texts" in one.prompt and "vectors" not in one.answer for one in calls):
        return f"the vectors of its embeddings are not kept (over {MOST_KEPT_BYTES / 1e6:g} MB in one call, or by an older version)"
    if any(one.prompt.get("logprobs") and "logprobs" not in one.answer for one in calls):
        return f"its log probabilities are not kept (over {MOST_KEPT_BYTES / 1e6:g} MB in one call, or by an older version)"
    return ""


_KEPT_OF_ANSWERS = ("reasoning", "logprobs", "vectors")


def retold(one: Recording) -> dict[str, Any]:
    """Return a recorded call as proofs, examples and parity have it, as JSON values: prompt, rung and text.

    What is seldom there: tool_calls, reasoning, logprobs, vectors (base64 of little-endian float32, text after text), and a
    finish_reason that says more than that the answer is whole.
    """
    calls = (one.answer.get("message") or {}).get("tool_calls")
    finish = one.answer.get("finish_reason")
    more = {name: one.answer[name] for name in _KEPT_OF_ANSWERS if one.answer.get(name)}
    more |= {"tool_calls": calls} if calls else {}
    more |= {"finish_reason": finish} if finish not in (None, "stop", "tool_calls") else {}
    return {"prompt": one.prompt, "rung": one.model, "text": one.answer.get("text", ""), **more}


def asked_in(prompt: Mapping[str, Any]) -> Any:
    """Return what a recorded prompt asks: its messages, or {"texts": [...]} for an embedding."""
    return {"texts": prompt["texts"]} if "texts" in prompt else prompt.get("messages", [])


@dataclass(frozen=True, slots=True)
class Own:
    """The recordings that count for a notebook. certain: they are known to be its own; notes: what a person should know of that."""

    recordings: tuple[Recording, ...]
    certain: bool = True
    notes: tuple[str, ...] = ()


def own_recordings(
    recordings: Iterable[Recording], flows: Iterable[str], is_own: Callable[[Recording], bool | None] | None
) -> Own:  # fmt: skip
    """Return a notebook's own recordings; where it has no run of these flows, of those of unknown notebooks the newest session's.

    is_own: True for its own, False for another notebook's, None where that is not known. None: nobody said which notebook is meant.
    """
    wanted = tuple(flows)
    sorted_out = [(one, is_own(one) if is_own else None) for one in recordings]
    own = tuple(one for one, its in sorted_out if its)
    if runs_of(own, wanted):
        return Own(own)
    unknown = [one for one, its in sorted_out if its is None]
    runs = runs_of(unknown, wanted)
    if not runs:
        others = len(runs_of((one for one, its in sorted_out if its is False), wanted))
        runs_are = "run in this home is" if others == 1 else "runs in this home are"
        told = f"{others} recorded {runs_are} of {_named(wanted)} in another notebook: not used."
        return Own(own, notes=(told,) if others else ())
    newest = max((run.calls[-1] for run in runs), key=lambda call: call.started_at)
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(newest.started_at))
    taken = f"({newest.session or 'unnamed'}, last at {at} UTC)"
    note = (
        f"No recorded run of {_named(wanted)} is known to be this notebook's. Taken instead: those of the newest session whose "
        f"notebook is not known {taken}."
        if is_own
        else f"The recorded runs are those of the newest session with {_named(wanted)} {taken}; --notebook says which are meant."
    )
    return Own(tuple(one for one in unknown if one.session == newest.session), certain=False, notes=(note,))


def tag_of(path: str) -> str:
    """Return what a notebook's path is called in the ledger, in recordings and in messages: no path, which would name folders."""
    return hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def of_file(notebook: Path) -> Callable[[Recording], bool | None]:
    """Return what tells the recordings of a notebook file: by its whole path, as a kernel that was started for it knows it."""
    own = {tag_of(str(path)) for path in (notebook.absolute(), notebook.resolve())}
    return lambda one: None if one.notebook is None else one.notebook in own


def _named(flows: Sequence[str]) -> str:
    return ", ".join(sorted(flows)) or "a flow"
