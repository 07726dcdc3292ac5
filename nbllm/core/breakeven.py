"""From how many tokens a day on a machine of one's own is cheaper than paying by the token. Pure arithmetic, money as Decimal.

The ledger says what the tokens cost: its own mix of input and output, at what was billed (`Mix`), or at a list price. A machine
costs the same each day, used or not, and writes at most so many tokens a second; for more there is a second one, and a third. So
one line goes through zero and the other is a staircase: they may cross once, several times, or never.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from nbllm.core.pricing import Price, cost
from nbllm.core.records import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DAY_S = 86_400
_HOURS = 24
_MTOK = Decimal(1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What model calls of a ledger were made of. days: over how many days they were spread, 1 at least.

    cost_usd: what they were billed, None when nothing is known of that. calls: how many there were.
    """

    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None
    calls: int
    days: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens in and out together."""
        return self.input_tokens + self.output_tokens

    @property
    def tokens_per_day(self) -> float:
        """Tokens a day, in and out together."""
        return self.tokens / self.days

    @property
    def output_share(self) -> float:
        """Share of the tokens that were written, 0 to 1."""
        return self.output_tokens / self.tokens if self.tokens else 0.0

    def usd_per_mtok(self, price: Price | None = None) -> Decimal | None:
        """Return what a million tokens of this mix cost, as billed or at a list price; None when that is unknown."""
        total = self.cost_usd
        if price is not None:
            # Tiers are for one long request; this is a sum of many.
            total = cost(Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens), replace(price, tiers=()))
        return None if total is None or not self.tokens else total / self.tokens * _MTOK


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine with a model server. usd_per_hour: also while it idles. tokens_per_s: written, as measured; None: unknown.

    use: share of the day for which requests keep it at that pace, 0 to 1: people sleep.
    """

    usd_per_hour: Decimal
    tokens_per_s: float | None = None
    use: float = 1.0

    @property
    def usd_per_day(self) -> Decimal:
        """What it costs a day."""
        return self.usd_per_hour * _HOURS

    def tokens_per_day(self, output_share: float) -> float | None:
        """Return how many tokens, in and out, it serves in a day at its pace; None when the pace is unknown."""
        if self.tokens_per_s is None or output_share <= 0:
            return None
        return self.tokens_per_s * _DAY_S * self.use / output_share


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The two costs as functions of tokens a day. capacity: tokens a day that one machine serves, None when unknown."""

    api_usd_per_mtok: Decimal
    machine_usd_per_day: Decimal
    capacity: float | None

    @property
    def tokens_per_day(self) -> float | None:
        """Tokens a day from which on one machine is cheaper; None: never, it cannot serve as many as it would have to.

        With an unknown capacity it is where the machine would be cheaper, if it kept up.
        """
        if self.api_usd_per_mtok <= 0:
            return None
        at = float(self.machine_usd_per_day / self.api_usd_per_mtok * _MTOK)
        return at if self.capacity is None or at <= self.capacity else None

    def api_usd(self, tokens: float) -> float:
        """Return what so many tokens a day cost at the API, in USD."""
        return tokens / 1e6 * float(self.api_usd_per_mtok)

    def machines(self, tokens: float) -> int:
        """Return how many machines serve so many tokens a day, 1 at least."""
        return 1 if not self.capacity else max(1, math.ceil(tokens / self.capacity - 1e-9))

    def own_usd(self, tokens: float) -> float:
        """Return what so many tokens a day cost on machines of one's own, in USD."""
        return self.machines(tokens) * float(self.machine_usd_per_day)

    def cheaper(self, up_to: float) -> list[tuple[float, float]]:
        """Return the ranges of tokens a day, up to a number, in which machines of one's own are cheaper.

        n machines cost n times C and serve up to n times K; at p dollars a token they are cheaper from n C / p to n K. Past n K
        the next one has to be paid, and the API may be cheaper again for a while.
        """
        first = self.tokens_per_day
        if first is None or first >= up_to:
            return []
        if self.capacity is None:
            return [(first, up_to)]
        found: list[tuple[float, float]] = []
        for n in range(1, self.machines(up_to) + 1):
            low, high = max(n * first, (n - 1) * self.capacity), min(n * self.capacity, up_to)
            if (n + 1) * first <= n * self.capacity:  # and so for all that follow: from here on there is no gap
                return [*found, (low, up_to)] if low < up_to else found
            if low < high:
                found.append((low, high))
        return found


def break_even(mix: Mix, machine: Machine, price: Price | None = None) -> BreakEven | None:
    """Return how the two costs compare for this mix; None when it is unknown what the tokens cost. price: a list price instead."""
    per_mtok = mix.usd_per_mtok(price)
    if per_mtok is None:
        return None
    return BreakEven(
        api_usd_per_mtok=per_mtok,
        machine_usd_per_day=machine.usd_per_day,
        capacity=machine.tokens_per_day(mix.output_share),
    )


def busy_pace(started_at: NDArray[np.float64], latency_s: NDArray[np.float64], output_tokens: NDArray[np.float64]) -> float | None:
    """Return the tokens a second that were written while any of these calls was under way; None without such a time.

    It is the pace at the load that there was: a server that works on many requests at once writes more. Columns as in Series.
    """
    spans = sorted((float(s), float(s + t)) for s, t in zip(started_at, latency_s, strict=True) if math.isfinite(t) and t > 0)
    busy_s = _covered(spans)
    tokens = sum(float(n) for n in output_tokens if math.isfinite(n))
    return tokens / busy_s if busy_s > 0 and tokens > 0 else None


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of spans in order of their begin."""
    total, until = 0.0, -math.inf
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
