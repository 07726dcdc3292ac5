"""Deadline and first-token limit against the calls of a session: what share would have run into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbllm.core.messages import Attempt, AttemptStatus, CallRow
from nbllm.core.ports import Filter
from nbllm.core.statistics import quantiles
from nbllm.core.survival import Share, Survival, survival

MOST_CALLS = 10_000
_TIMERS = frozenset({"FirstTokenTimeout", "AttemptTimeout", "DeadlineExceeded"})
"""Errors that say that something took too long, by the names that the ledger keeps."""
_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyData:
    """How long the calls of a session took.

    whole: of calls, from the door until the whole answer; first: of the first attempts of streamed calls, until the first token.
    Calls and attempts that a time limit or a person ended are in them as cut. whole_p95_s, first_p95_s: of those that were not
    cut, None from fewer than 20. failed: calls that failed for other reasons, left out; hits: answered from the cache, left out.
    deadline_s, ttft_s: in force now. more: there were older calls.
    """

    whole: Survival
    first: Survival
    whole_p95_s: float | None
    first_p95_s: float | None
    failed: int
    hits: int
    deadline_s: float
    ttft_s: float
    more: bool = False
    simulated: bool = False
    example: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyNumbers:
    """Two limits in seconds. late: share of calls that would have been ended by the deadline; slow: share of streamed calls whose

    first token would have come too late, so that the next rung had been tried.
    """

    deadline_s: float
    ttft_s: float
    late: Share
    slow: Share


def at(data: LatencyData, deadline_s: float, ttft_s: float) -> LatencyNumbers:
    """Return what two limits would have meant for these calls."""
    return LatencyNumbers(
        deadline_s=deadline_s,
        ttft_s=ttft_s,
        late=data.whole.longer_than(deadline_s),
        slow=data.first.longer_than(ttft_s),
    )


def grid(times: Survival, now_s: float) -> tuple[float, ...]:
    """Return where a slider may stand, in seconds: round values around what was seen, and what is in force now."""
    seen = times.at_s if times.at_s.size else np.array([max(times.last_s, 0.1)])
    low, high = float(seen[0]) / 3, max(times.last_s * 3, now_s)
    decades = range(-3, 5)
    round_values = {round(step * 10.0**decade, 6) for decade in decades for step in _STEPS}
    return tuple(sorted({value for value in round_values if max(low, 1e-3) <= value <= high} | {now_s}))


def read(client: Any) -> LatencyData:
    """Return what this session's calls say."""
    where = Filter(session=client.session)
    calls = [call for call in client.ledger.calls(where, limit=MOST_CALLS) if call.kind == "chat"]
    attempts = client.ledger.attempts_of(where, limit=MOST_CALLS)
    defaults = client.settings.call
    return of_calls(calls, attempts, deadline_s=float(defaults["deadline_s"]), ttft_s=float(defaults["ttft_s"]))


def of_calls(calls: Sequence[CallRow], attempts: Sequence[Attempt], *, deadline_s: float, ttft_s: float) -> LatencyData:
    """Return the data of these calls with their attempts."""
    own: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.purpose in {"answer", "repair"}:
            own.setdefault(attempt.call_id, []).append(attempt)
    whole: list[tuple[float, bool]] = []
    first: list[tuple[float, bool]] = []
    hits = failed = 0
    for call in calls:
        mine = own.get(call.call_id, [])
        if call.source in {"cache", "semantic"} and not mine:
            hits += 1
            continue
        time = _whole(call, mine)
        failed += time is None and call.status is not AttemptStatus.OPEN
        whole += [] if time is None else [time]
        begun = _first(mine[0]) if mine else None
        first += [] if begun is None else [begun]
    return LatencyData(
        whole=_survival(whole),
        first=_survival(first),
        whole_p95_s=_p95(whole),
        first_p95_s=_p95(first),
        failed=failed,
        hits=hits,
        deadline_s=deadline_s,
        ttft_s=ttft_s,
        more=len(calls) >= MOST_CALLS,
        simulated=any((call.rung or call.model or "").startswith("sim/") for call in calls),
    )


def _whole(call: CallRow, attempts: Sequence[Attempt]) -> tuple[float, bool] | None:
    """Return how long a call took and whether it was cut; None for one that says nothing of it."""
    if call.latency_s is None or call.status is AttemptStatus.OPEN:
        return None
    if call.status is AttemptStatus.DONE and call.source == "model":
        return call.latency_s, False
    timed = call.error in _TIMERS or any(attempt.error in _TIMERS for attempt in attempts)
    return (call.latency_s, True) if timed or call.status is AttemptStatus.CANCELLED else None


def _first(attempt: Attempt) -> tuple[float, bool] | None:
    """Return when the first token of a streamed attempt came, or until when it had not; None for other attempts."""
    if not attempt.streamed or attempt.sent is False:
        return None
    if attempt.ttft_s is not None:
        return attempt.ttft_s, False
    cut = attempt.error in _TIMERS or attempt.status is AttemptStatus.CANCELLED
    return (attempt.latency_s, True) if cut and attempt.latency_s is not None else None


def _survival(times: Sequence[tuple[float, bool]]) -> Survival:
    return survival(np.array([time for time, _ in times], dtype=np.float64), np.array([cut for _, cut in times], dtype=bool))


def _p95(times: Sequence[tuple[float, bool]]) -> float | None:
    (found,) = quantiles(np.array([time for time, cut in times if not cut], dtype=np.float64), 0.95)
    return found
