"""Routes that go by numbers: cheapest, fastest, and who has room under its limits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from statistics import median

from nbllm.core.messages import Rung
from nbllm.core.records import Seen
from nbllm.money import format_usd

KEPT = 200
"""How many of the newest answers of a model are looked at."""
GUESSED_TOKENS = 500
"""How long an answer is taken to be while the ledger holds none of any model."""


class Numbers:
    """The newest answers of each model, KEPT at most."""

    def __init__(self, seen: Sequence[Seen] = ()) -> None:
        self._by_rung: dict[str, deque[Seen]] = {}
        self._latencies: dict[str, tuple[float | None, int]] = {}
        """Medians until the next answer: a median of 200 takes a fifth of the time that a whole decision may take."""
        self._tokens: dict[str, float] = {}
        for one in seen:
            self.add(one)

    def add(self, one: Seen) -> None:
        """Take in an answer, newer than all before it."""
        self._by_rung.setdefault(one.rung, deque(maxlen=KEPT)).append(one)
        self._latencies.pop(one.rung, None)
        self._tokens.clear()  # a model without answers goes by those of all

    def latency_s(self, rung: str) -> tuple[float | None, int]:
        """Return the median latency of a model's answers, None without any, and how many there are."""
        found = self._latencies.get(rung)
        if found is None:
            values = [one.latency_s for one in self._by_rung.get(rung, ()) if one.latency_s is not None]
            found = self._latencies[rung] = (median(values) if values else None), len(values)
        return found

    def output_tokens(self, rung: str) -> float:
        """Return how long a model's answers are on average; without any, how long those of all models are."""
        if rung not in self._tokens:
            self._tokens[rung] = self._mean_tokens(rung)
        return self._tokens[rung]

    def _mean_tokens(self, rung: str) -> float:
        own = [one.output_tokens for one in self._by_rung.get(rung, ()) if one.output_tokens is not None]
        if not own:
            own = [one.output_tokens for seen in self._by_rung.values() for one in seen if one.output_tokens is not None]
        return sum(own) / len(own) if own else GUESSED_TOKENS


def cheapest(rungs: Sequence[Rung], healthy: Mapping[str, bool], numbers: Numbers, input_tokens: int) -> tuple[list[Rung], str]:
    """Return the rungs by what this request may cost there, unhealthy ones and those without a price last; and why the first."""
    costs: dict[str, Decimal | None] = {}
    for rung in rungs:
        price = rung.price
        out = Decimal(repr(round(numbers.output_tokens(rung.id), 1)))
        costs[rung.id] = (
            None if price is None else (price.input_usd_per_mtok * input_tokens + price.output_usd_per_mtok * out) / 1_000_000
        )

    def order(rung: Rung) -> tuple[bool, bool, Decimal]:
        cost = costs[rung.id]
        return not healthy.get(rung.id, True), cost is None, cost or Decimal(0)

    ordered = sorted(rungs, key=order)  # stable: equal ones stay in route order
    first = costs[ordered[0].id]
    said = "price unknown" if first is None else f"about {format_usd(first)} for this request"
    return ordered, f"cheapest healthy: {said}{_skipped(rungs, healthy)}"


def fastest(rungs: Sequence[Rung], healthy: Mapping[str, bool], numbers: Numbers, min_calls: int) -> tuple[list[Rung], str]:
    """Return the rungs by median latency, those of too few answers first so that they get some, and why the first one."""
    seen = {rung.id: numbers.latency_s(rung.id) for rung in rungs}

    def order(rung: Rung) -> tuple[bool, float]:
        latency_s, count = seen[rung.id]
        return not healthy.get(rung.id, True), -math.inf if latency_s is None or count < min_calls else latency_s

    ordered = sorted(rungs, key=order)
    latency_s, count = seen[ordered[0].id]
    if latency_s is None or count < min_calls:
        said = f"not measured yet ({count} of {min_calls} answers)"
    else:
        said = f"fastest healthy: median {latency_s:.3g} s over {count} answers"
    return ordered, said + _skipped(rungs, healthy)


def spilled(rungs: Sequence[Rung], waits_s: Mapping[str, float], most_s: float) -> tuple[list[Rung], str]:
    """Return the rungs that have room within most_s seconds, then the others, by how long they would have to wait."""
    roomy = [rung for rung in rungs if waits_s[rung.id] <= most_s]
    full = sorted((rung for rung in rungs if waits_s[rung.id] > most_s), key=lambda rung: waits_s[rung.id])
    if not roomy:
        first_s = waits_s[full[0].id]
        when = f"in {first_s:.1f} s" if math.isfinite(first_s) else "when a call ends"
        return full, f"all are at their limits; {full[0].id} has room first, {when}"
    before = [rung.id for rung in full if rungs.index(rung) < rungs.index(roomy[0])]
    said = f"spilled over: {', '.join(before)} at the rate limit" if before else "room under its limits"
    return [*roomy, *full], said


def _skipped(rungs: Sequence[Rung], healthy: Mapping[str, bool]) -> str:
    resting = [rung.id for rung in rungs if not healthy.get(rung.id, True)]
    return f"; {', '.join(resting)} rest{'s' if len(resting) == 1 else ''}" if resting else ""
