"""The circuit breaker of one (endpoint, model), or of a whole endpoint: a value, and functions from value to value.

closed --5 failures, half of the attempts in 30 s--> open 15 s --> one probe --success--> closed
                                                       ^              |
                                                       +--- failure: open twice as long, at most 120 s

Every change of phase starts a new generation. Each attempt carries a Ticket with the generation in which it was let through, and
a result counts in that generation only: what was sent before the breaker opened can neither close nor open it later.
"""

from __future__ import annotations

import math
from enum import Enum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

WINDOW_S = 30
MIN_FAILURES = 5
OPEN_S = 15.0
MAX_OPEN_S = 120.0
PROBE_LEASE_S = 30.0


class Outcome(Enum):
    """What an attempt says about its endpoint. NEUTRAL: nothing (429, the caller's own 4xx, timeout or cancellation)."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Verdict(Enum):
    """ALLOW: send. PROBE: send, as the one attempt that finds out whether the endpoint is back. REFUSE: do not send."""

    ALLOW = "allow"
    PROBE = "probe"
    REFUSE = "refuse"


class Ticket(Struct, frozen=True, gc=False):
    """Proof of having asked, handed back with the result. probe: the lease's id, None for an ordinary attempt."""

    generation: int
    probe: str | None = None


class Decision(Struct, frozen=True, gc=False):
    """The answer to `ask`. ticket: for ALLOW and PROBE. retry_at_s: for REFUSE, when asking again can help; None: never by waiting.

    reason: why the key or model is switched off, "" when it is not.
    """

    verdict: Verdict
    ticket: Ticket | None = None
    retry_at_s: float | None = None
    reason: str = ""

    @property
    def sends(self) -> bool:
        """Whether the attempt may be sent."""
        return self.verdict is not Verdict.REFUSE


class Off(Struct, frozen=True, gc=False):
    """A key (401) or a model (403) that stays off until settings change. settings: what stood for them when it was refused."""

    reason: str
    settings: str = ""


class BreakerState(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Times are seconds on the clock of `now_s`, which must be the same for all who share the state.

    slots: (second, attempts, failures) while closed, oldest first. open_until_s: None while closed. open_s: how long it opens
    next. lease_id, lease_until_s: the probe that is out.
    """

    generation: int = 0
    slots: tuple[tuple[int, int, int], ...] = ()
    open_until_s: float | None = None
    open_s: float = OPEN_S
    lease_id: str | None = None
    lease_until_s: float = 0.0
    off: Off | None = None

    @property
    def is_open(self) -> bool:
        """Whether ordinary attempts are refused."""
        return self.open_until_s is not None


def ask(
    state: BreakerState | None, now_s: float, lease_id: str, *, lease_s: float = PROBE_LEASE_S, settings: str = ""
) -> tuple[BreakerState, Decision]:
    """Return the state after asking, and whether an attempt may be sent. state None: nothing is known yet.

    lease_id: any id of the asker's own, used if it becomes the probe; lease_s: how long its probe may take before another is
    let through. settings: what stands for the current settings of key and model; when it differs from what a switched-off key
    or model was refused with, that is on again.
    """
    state = state or BreakerState()
    if state.off is not None:
        if state.off.settings == settings:
            return state, Decision(Verdict.REFUSE, reason=state.off.reason)
        state = replace(state, off=None)
    if state.open_until_s is None:
        return state, Decision(Verdict.ALLOW, Ticket(state.generation))
    retry_at_s = refuses(state, now_s)
    if retry_at_s is not None:
        return state, Decision(Verdict.REFUSE, retry_at_s=retry_at_s)
    leased = replace(state, lease_id=lease_id, lease_until_s=now_s + lease_s)
    return leased, Decision(Verdict.PROBE, Ticket(state.generation, lease_id))


def refuses(state: BreakerState, now_s: float) -> float | None:
    """Return until when the breaker refuses (open, or a probe is out), None when an attempt may go. Takes no probe."""
    if state.open_until_s is None:
        return None
    if now_s < state.open_until_s:
        return state.open_until_s
    if state.lease_id is not None and now_s < state.lease_until_s:
        return state.lease_until_s
    return None


def report(state: BreakerState | None, outcome: Outcome, now_s: float, ticket: Ticket) -> BreakerState:
    """Return the state after a result. One of an older generation, or of a probe that was replaced, changes nothing."""
    state = state or BreakerState()
    if ticket.generation != state.generation:
        return state
    if state.open_until_s is None:
        return state if outcome is Outcome.NEUTRAL else _counted(state, outcome, now_s)
    if ticket.probe is None or ticket.probe != state.lease_id:
        return state
    if outcome is Outcome.NEUTRAL:
        return replace(state, lease_id=None, lease_until_s=0.0)
    if outcome is Outcome.SUCCESS:
        return BreakerState(generation=state.generation + 1, off=state.off)
    return _opened(state, now_s, open_s=min(2 * state.open_s, MAX_OPEN_S))


def switch_off(state: BreakerState, reason: str, settings: str = "") -> BreakerState:
    """Return the state with the key or model off until `ask` comes with other settings. reason is shown to people."""
    return replace(state, off=Off(reason, settings))


def _counted(state: BreakerState, outcome: Outcome, now_s: float) -> BreakerState:
    failed = int(outcome is Outcome.FAILURE)
    second = math.floor(now_s)
    slots = state.slots
    if slots and slots[0][0] <= second - WINDOW_S:
        slots = tuple(slot for slot in slots if slot[0] > second - WINDOW_S)
    if slots and slots[-1][0] >= second:  # a slightly older time of another thread counts in the newest slot
        last, attempts, failures = slots[-1]
        slots = (*slots[:-1], (last, attempts + 1, failures + failed))
    else:
        slots = (*slots, (second, 1, failed))
    if failed:
        failures = sum(slot[2] for slot in slots)
        if failures >= MIN_FAILURES and 2 * failures >= sum(slot[1] for slot in slots):
            return _opened(state, now_s, open_s=OPEN_S)
    # Built directly: this runs for every attempt, and dataclasses.replace takes three times as long.
    return BreakerState(generation=state.generation, slots=slots, off=state.off)


def _opened(state: BreakerState, now_s: float, *, open_s: float) -> BreakerState:
    return BreakerState(generation=state.generation + 1, open_until_s=now_s + open_s, open_s=open_s, off=state.off)


def to_json(state: BreakerState) -> str:
    """Return the state as JSON, for a backend that shares it."""
    return msgspec.json.encode(state).decode()


def from_json(text: str) -> BreakerState:
    """Return the state that `to_json` wrote. Raises ValueError for anything else."""
    try:
        return msgspec.json.decode(text, type=BreakerState)
    except msgspec.MsgspecError as exc:
        raise ValueError(f"{text[:80]!r} is no breaker state.") from exc
