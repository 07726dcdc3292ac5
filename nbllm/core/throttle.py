"""An endpoint's own limits: requests and tokens a minute, as values and functions.

Stated limits (rpm, tpm) are held by counting the last 60 seconds in slots of a second: all of a minute's requests may go at once,
and in no 60 seconds do more go than stated. A token bucket with the minute as its burst would let twice the limit through in the
first minute, and one with a small burst would keep a notebook waiting for no reason.

Limits learned from headers are token buckets, because that is what providers run (Anthropic says so; OpenAI's "reset" is the time
until the bucket is full again): `left` now, refilled at (limit - left) / reset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nbllm.core.ports import RateLimits

WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """Stated limits per minute; None: not limited."""

    rpm: int | None = None
    tpm: int | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit learned from headers: `level` units were left at the monotonic time at_s, refilled at per_s up to limit.

    A negative level is debt: what was admitted beyond it is waited for by those who come next.
    """

    limit: float
    level: float
    at_s: float
    per_s: float

    def now(self, now_s: float) -> float:
        """Return the units left at now_s."""
        return min(self.limit, self.level + self.per_s * max(0.0, now_s - self.at_s))


@dataclass(frozen=True, slots=True)
class BucketState:
    """slots: (second, requests, tokens) that were admitted, oldest first. requests, tokens: learned from headers, None: nothing."""

    slots: tuple[tuple[int, int, int], ...] = ()
    requests: Bucket | None = None
    tokens: Bucket | None = None


def take(state: BucketState | None, limits: Limits, requests: int, tokens: int, now_s: float) -> tuple[BucketState, float]:
    """Return (state, 0.0) with the request counted in, or (state, seconds) unchanged: ask again after that long.

    A request larger than a whole limit is not refused for ever, since a provider may count it smaller than we do: it goes alone,
    once nothing else is in the window (a learned bucket: once it is full).
    """
    state = _pruned(state or BucketState(), now_s)
    wait_s = max(
        _window_wait_s(state.slots, 1, requests, limits.rpm, now_s),
        _window_wait_s(state.slots, 2, tokens, limits.tpm, now_s),
        _bucket_wait_s(state.requests, requests, now_s),
        _bucket_wait_s(state.tokens, tokens, now_s),
    )
    if wait_s > 0:
        return state, wait_s
    second = int(now_s // 1)
    slots = state.slots
    # Callers on several threads may come with slightly older times: they count in the newest slot, which keeps slots in order.
    if slots and slots[-1][0] >= second:
        second, before_requests, before_tokens = slots[-1]
        slots = (*slots[:-1], (second, before_requests + requests, before_tokens + tokens))
    else:
        slots = (*slots, (second, requests, tokens))
    return BucketState(slots, _drawn(state.requests, requests, now_s), _drawn(state.tokens, tokens, now_s)), 0.0


def learn(state: BucketState | None, limits: RateLimits, now_s: float) -> BucketState:
    """Take in what the headers of one response say.

    What is left is taken as the lower of the header's count and our own, because requests that are under way are in ours and not
    in the header's. So an estimate that is too high is not corrected upwards at once: the refill, at the provider's own rate,
    does it.
    """
    state = state or BucketState()
    return replace(
        state,
        requests=_learned(state.requests, limits.requests_limit, limits.requests_left, limits.requests_reset_s, now_s),
        tokens=_learned(state.tokens, limits.tokens_limit, limits.tokens_left, limits.tokens_reset_s, now_s),
    )


def room(state: BucketState | None, limits: Limits, now_s: float) -> tuple[int | None, int | None]:
    """Return how many requests and how many tokens the limits leave at now_s, None where no limit is known."""
    state = _pruned(state or BucketState(), now_s)

    def left(limit: int | None, column: int, bucket: Bucket | None) -> int | None:
        known = [] if not limit else [float(limit - sum(slot[column] for slot in state.slots))]
        known += [] if bucket is None else [bucket.now(now_s)]
        return max(0, int(min(known))) if known else None

    return left(limits.rpm, 1, state.requests), left(limits.tpm, 2, state.tokens)


def fullness(state: BucketState | None, limits: Limits, now_s: float) -> float:
    """Return how much of the tightest limit is used at now_s, from 0 to 1; 0 where no limit is known."""
    state = _pruned(state or BucketState(), now_s)
    used = [0.0]
    for column, limit in ((1, limits.rpm), (2, limits.tpm)):
        if limit:
            used.append(sum(slot[column] for slot in state.slots) / limit)
    used += [1 - bucket.now(now_s) / bucket.limit for bucket in (state.requests, state.tokens) if bucket and bucket.limit > 0]
    return min(1.0, max(used))


def _pruned(state: BucketState, now_s: float) -> BucketState:
    if state.slots and _leaves_at_s(state.slots[0]) <= now_s:
        return replace(state, slots=tuple(slot for slot in state.slots if _leaves_at_s(slot) > now_s))
    return state


def _leaves_at_s(slot: tuple[int, int, int]) -> float:
    # What was admitted at the end of a slot's second leaves the window a second later than what came at its start.
    return slot[0] + 1 + WINDOW_S


def _window_wait_s(slots: tuple[tuple[int, int, int], ...], column: int, wanted: int, limit: int | None, now_s: float) -> float:
    """Return the seconds until `wanted` fits below the limit; slots must be pruned."""
    if limit is None:
        return 0.0
    used = sum(slot[column] for slot in slots)
    for slot in slots:
        if used == 0 or used + wanted <= limit:
            break
        used -= slot[column]
        if used == 0 or used + wanted <= limit:
            return max(0.0, _leaves_at_s(slot) - now_s)
    return 0.0


def _bucket_wait_s(bucket: Bucket | None, wanted: int, now_s: float) -> float:
    if bucket is None or not wanted:
        return 0.0
    # 1e-9: a timer that rang a rounding error early must not be sent back for another round.
    missing = min(wanted, bucket.limit) - bucket.now(now_s) - 1e-9
    return missing / bucket.per_s if missing > 0 else 0.0


def _drawn(bucket: Bucket | None, amount: int, now_s: float) -> Bucket | None:
    return bucket and replace(bucket, level=bucket.now(now_s) - amount, at_s=max(now_s, bucket.at_s))


def _learned(before: Bucket | None, limit: int | None, left: int | None, reset_s: float | None, now_s: float) -> Bucket | None:
    if left is None or left < 0:
        return before
    size = float(max(limit or 0, left, before.limit if before and limit is None else 0, 1))
    level = min(float(left), before.now(now_s)) if before else float(left)
    # Without a reset, or with one that cannot be told from "full", a limit is taken to be per minute.
    timed = reset_s is not None and reset_s > 0 and left < size
    per_s = (size - left) / reset_s if timed and reset_s else size / WINDOW_S
    return Bucket(size, level, now_s, per_s)
