"""The timers of one attempt: which one counts now, when it rings, and whose hurry it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from msgspec import Struct

from nbllm.core.ladder import attempt_share_s
from nbllm.core.messages import Options, Rung
from nbllm.errors import AttemptFailed, AttemptTimeout, FirstTokenTimeout, Scope, StreamInterrupted


class Kind(Enum):
    """SHARE: the time that one attempt may take. FIRST: the wait for the first token of a stream. IDLE: a silence within one."""

    SHARE = "share"
    FIRST = "first"
    IDLE = "idle"


class Timer(Struct, frozen=True, gc=False):
    """Rings at the monotonic time at_s, after length_s seconds.

    own: the caller is in more of a hurry than the client's settings are. Such a timer says nothing about the endpoint.
    """

    at_s: float
    kind: Kind
    length_s: float
    own: bool


class Progress(Struct, frozen=True, kw_only=True, gc=False):
    """How far an attempt is; times are monotonic seconds. sent_s: started_s until it is sent. last_s: when the last piece came."""

    streamed: bool
    started_s: float
    sent_s: float
    last_s: float
    begun: bool = False
    """Whether the first token is there. Reasoning and tool calls are tokens too."""


def next_timer(
    options: Options, usual: Mapping[str, Any], progress: Progress, *, deadline_at_s: float, rungs_left: int
) -> Timer | None:
    """Return the timer that rings first, None where only the deadline itself limits the attempt.

    usual: the settings' values of deadline_s, attempt_s, ttft_s and idle_s; a smaller one of the call's own is its own hurry.
    A silent primary may not use up its fallback's time: a whole answer, and a stream until its first token, have at most their
    share of what was left when they started.
    """
    p = progress
    left_s = deadline_at_s - p.started_s
    timers: list[Timer] = []

    def add(kind: Kind, from_s: float, length_s: float, option: str) -> None:
        timers.append(Timer(from_s + length_s, kind, length_s, _hurried(getattr(options, option), usual.get(option))))

    share_s = attempt_share_s(left_s, rungs_left=rungs_left, attempt_s=options.attempt_s, streamed=p.streamed)
    if share_s is not None:
        add(Kind.SHARE, p.started_s, share_s, "deadline_s" if options.attempt_s is None else "attempt_s")
    if p.streamed and p.begun and options.idle_s is not None:
        add(Kind.IDLE, p.last_s, options.idle_s, "idle_s")
    elif p.streamed and not p.begun:
        if options.ttft_s is not None:
            add(Kind.FIRST, p.sent_s, options.ttft_s, "ttft_s")
        if rungs_left > 1:
            add(Kind.FIRST, p.started_s, max(0.0, left_s) / rungs_left, "deadline_s")
    return min(timers, key=lambda timer: timer.at_s) if timers else None


def ran_out(timer: Timer, rung: Rung, *, begun: bool) -> AttemptFailed:
    """Return the error for a timer that rang; it counts on the breaker unless the hurry was the caller's own."""
    error: AttemptFailed
    if timer.kind is Kind.IDLE:
        error = StreamInterrupted(f"{rung.id} fell silent for {timer.length_s:.3g} s in mid-answer (idle_s).")
    elif timer.kind is Kind.FIRST:
        error = FirstTokenTimeout(
            f"{rung.id} sent no first token within {timer.length_s:.3g} s.",
            hint="Raise ttft_s= (and deadline_s=) if the model is known to think long before it answers.",
        )
    else:
        kind = StreamInterrupted if begun else AttemptTimeout
        error = kind(
            f"{rung.id} did not answer within {timer.length_s:.3g} s, its share of the deadline.",
            hint="Give it longer with deadline_s= or attempt_s=, or put a faster model on the ladder.",
        )
    if timer.own:
        error.advice = error.advice._replace(breaker=Scope.NOBODY)
    return error


def _hurried(given_s: float | None, usual_s: float | None) -> bool:
    return given_s is not None and (usual_s is None or given_s < usual_s)
