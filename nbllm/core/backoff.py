"""When to try again: backoff with full jitter, Retry-After, and a budget that keeps retries from becoming a storm."""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

BASE_S = 0.25
CAP_S = 8.0
RETRY_AFTER_MARGIN = 1.05
"""Clocks differ and headers are rounded: a caller that comes back on the second is often refused once more."""

WINDOW_S = 10
RETRY_SHARE = 0.2
RETRY_FLOOR = 3


def delay_s(attempt: int, jitter: float, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the seconds to wait before the next try: jitter * min(cap_s, base_s * 2**attempt).

    attempt: tries that failed before the one that failed just now, so 0 after the first. jitter is uniform in [0, 1).
    "Full jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: it needed the fewest calls and
    the least time of the variants compared there.
    """
    if attempt < 0:
        raise ValueError(f"attempt counts failed tries and starts at 0, got {attempt!r}.")
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter must be in [0, 1), got {jitter!r}.")
    # 2**62 is far over any cap; without the bound a large attempt number would overflow a float.
    return jitter * min(cap_s, base_s * 2.0 ** min(attempt, 62))


def wait_s(attempt: int, jitter: float, retry_after_s: float | None, left_s: float) -> float | None:
    """Return the seconds to wait before the next try, or None where the wait does not end before the deadline.

    retry_after_s: what the provider asked for, None when it did not; waited for with 5% on top. 0 counts as not said, so that
    a provider that always answers 0 still sees backoff. left_s: seconds until the deadline.
    """
    wait = retry_after_s * RETRY_AFTER_MARGIN if retry_after_s and retry_after_s > 0 else delay_s(attempt, jitter)
    return wait if wait < left_s else None


class RetryBudget(Struct, frozen=True, gc=False):
    """Attempts and retries of one endpoint in the last 10 seconds, counted by whole seconds.

    share, floor: retries may be at most `share` of the first attempts, and `floor` in any case, so that a dead endpoint gets at
    most 1.2 times the calls that were made and a quiet notebook can still retry. slots: (second, attempts, retries), oldest
    first; attempts count every request, retries included. Window, share and floor follow Finagle's RetryBudget (ttl 10 s, 20%,
    a minimum); gRPC's retry throttling (gRFC A6) serves the same end.
    """

    slots: tuple[tuple[int, int, int], ...] = ()
    share: float = RETRY_SHARE
    floor: int = RETRY_FLOOR


def may_retry(state: RetryBudget, now_s: float) -> bool:
    """Whether one more retry fits at the monotonic time now_s. Ask and `on_retry` in one step where others ask too."""
    recent = _recent(state, now_s)
    retries = sum(slot[2] for slot in recent)
    first_attempts = sum(slot[1] for slot in recent) - retries
    # 1e-9: a share such as 0.2 is slightly off in binary, and 5 * 0.2 must allow 1.
    return retries < max(state.floor, math.floor(state.share * first_attempts + 1e-9))


def on_attempt(state: RetryBudget, now_s: float) -> RetryBudget:
    """Count a request that goes out, first or retry."""
    return _counted(state, now_s, attempts=1, retries=0)


def on_retry(state: RetryBudget, now_s: float) -> RetryBudget:
    """Count the decision to retry, before its backoff; the request itself counts by `on_attempt` when it goes out."""
    return _counted(state, now_s, attempts=0, retries=1)


def _recent(state: RetryBudget, now_s: float) -> tuple[tuple[int, int, int], ...]:
    oldest, slots = math.floor(now_s) - WINDOW_S, state.slots
    if not slots or slots[0][0] > oldest:
        return slots
    return tuple(slot for slot in slots if slot[0] > oldest)


def _counted(state: RetryBudget, now_s: float, *, attempts: int, retries: int) -> RetryBudget:
    slots = _recent(state, now_s)
    # Callers on several threads may come with slightly older times: they count in the newest slot, which keeps slots in order.
    second = max(math.floor(now_s), slots[-1][0]) if slots else math.floor(now_s)
    if slots and slots[-1][0] == second:
        _, before_attempts, before_retries = slots[-1]
        slots = slots[:-1]
        attempts, retries = before_attempts + attempts, before_retries + retries
    return replace(state, slots=(*slots, (second, attempts, retries)))
