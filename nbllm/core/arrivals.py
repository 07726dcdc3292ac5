"""When requests of a load test arrive, whatever becomes of the ones before them, and what came of them. Pure; loads numpy.

Open loop: users who wait for a slow answer before they ask again would hide how slow it is (the "coordinated omission" of closed
loops; G. Tene, "How NOT to Measure Latency", 2013; B. Schroeder et al., "Open Versus Closed", NSDI 2006). So the times are fixed
before the first request is sent, and latency counts from the time at which a request was due.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from nbllm.core.ports import Series
from nbllm.core.statistics import quantiles
from nbllm.errors import InvalidRequest

Floats = NDArray[np.float64]
MOST_REQUESTS = 100_000
_FULL, _LEAST = 30, 4
"""Requests in a stretch of time from which a P95 says something, and stretches that show a course."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Users who ask independently of each other. every_s: mean seconds between two questions of one user.

    seconds: how long new requests are sent. ramp_s: over how long the users come, evenly, from the start. even: at equal distances
    instead of by chance (Poisson). limit_s: how long an answer is waited for.
    """

    users: int = 50
    seconds: float = 20.0
    every_s: float = 1.0
    ramp_s: float = 0.0
    even: bool = False
    seed: int = 0
    limit_s: float = 30.0

    def __post_init__(self) -> None:
        """Raise InvalidRequest for what cannot be run."""
        for name in ("users", "seconds", "every_s", "limit_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InvalidRequest(f"{name}={getattr(self, name)!r}: a number above 0 is needed. Nothing was sent.")
        if not 0 <= self.ramp_s <= self.seconds:
            raise InvalidRequest(
                f"ramp_s={self.ramp_s:g}: it must lie within the {self.seconds:g} s of the test. Nothing was sent."
            )
        if self.requests > MOST_REQUESTS:
            raise InvalidRequest(
                f"{self.users:,} users for {self.seconds:g} s would send about {self.requests:,.0f} requests. Nothing was sent.",
                hint=f"At most {MOST_REQUESTS:,}: take fewer users, fewer seconds, or a larger every_s.",
            )

    @property
    def per_s(self) -> float:
        """Requests a second once all users are there."""
        return self.users / self.every_s

    @property
    def requests(self) -> float:
        """How many requests are to be expected."""
        return self.per_s * (self.seconds - self.ramp_s / 2)

    def arrivals(self) -> Floats:
        """Return the times of all requests in seconds from the start, in order; the same for the same plan.

        The points of a process of rate 1 are carried over to the time at which the plan expects as many requests: with a ramp,
        t^2 / (2 ramp) x rate in it, and (t - ramp / 2) x rate after it.
        """
        total = self.requests
        if self.even:
            points = np.arange(0.5, total, 1.0)
        else:
            random = np.random.default_rng(self.seed)
            room = int(total + 10 * math.sqrt(total) + 20)
            points = np.cumsum(random.exponential(1.0, room))
            points = points[points < total]
        in_ramp = self.per_s * self.ramp_s / 2
        times: Floats = points / self.per_s + self.ramp_s / 2
        if self.ramp_s:
            early = points < in_ramp
            times[early] = np.sqrt(2 * self.ramp_s * points[early] / self.per_s)
        return times


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. due_s: when it was to be sent, from the start; late_s: how much later that happened (this machine was busy).

    latency_s: from when it was due until the whole answer or its failure. error: "" or what kind of failure. status: HTTP, None
    without an answer. cost_usd: None when unknown. source: where the answer came from, "" when that is not said.
    """

    due_s: float
    late_s: float
    latency_s: float
    error: str = ""
    status: int | None = None
    cost_usd: Decimal | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """Percentiles of the requests that were due in a stretch of time; None: too few of them for it."""

    begin_s: float
    end_s: float
    sent: int
    failed: int
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True)
class LoadResult:
    """What a load test measured. stopped: it was ended before its time. notes: what to keep in mind with the numbers."""

    plan: LoadPlan
    samples: Sequence[Sample]
    target: str = ""
    stopped: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def answered(self) -> list[Sample]:
        """The requests that were answered well."""
        return [sample for sample in self.samples if not sample.error]

    def errors(self) -> Mapping[str, int]:
        """Return how many requests failed, by kind, the most frequent first."""
        return dict(Counter(sample.error for sample in self.samples if sample.error).most_common())

    def percentiles(self) -> tuple[float | None, float | None, float | None]:
        """Return P50, P95 and P99 of the answers in seconds; None where there are too few."""
        p50_s, p95_s, p99_s = quantiles(_column(self.answered, "latency_s"), 0.50, 0.95, 0.99)
        return p50_s, p95_s, p99_s

    def cost_usd(self) -> tuple[Decimal, int]:
        """Return what the answers cost, and of how many the cost is not known."""
        known = [sample.cost_usd for sample in self.answered if sample.cost_usd is not None]
        return sum(known, Decimal(0)), len(self.answered) - len(known)

    def sources(self) -> Mapping[str, int]:
        """Return how many answers came from where (model, cache ...), as far as it is said."""
        return dict(Counter(sample.source for sample in self.answered if sample.source).most_common())

    def late_s(self) -> float:
        """Return the P95 of how much later than due requests were sent: above some ms this machine was the bottleneck."""
        late = _column(self.samples, "late_s")
        return float(np.quantile(late, 0.95)) if late.size else 0.0

    def windows(self, most: int = 20) -> list[Window]:
        """Return percentiles by time, in up to `most` equal stretches of a second or more, wide enough for 30 requests."""
        if not self.samples:
            return []
        count = int(max(1, min(most, self.plan.seconds, max(len(self.samples) / _FULL, _LEAST))))
        edges = np.linspace(0, self.plan.seconds, count + 1)
        due = _column(self.samples, "due_s")
        latency, failed = _column(self.samples, "latency_s"), np.array([bool(s.error) for s in self.samples])
        place = np.clip(np.searchsorted(edges, due, side="right") - 1, 0, count - 1)
        found = []
        for number in range(count):
            mine = place == number
            p50_s, p95_s = quantiles(latency[mine & ~failed], 0.50, 0.95)
            lost = int(np.count_nonzero(mine & failed))
            found.append(Window(float(edges[number]), float(edges[number + 1]), int(mine.sum()), lost, p50_s, p95_s))
        return found

    def series(self) -> Series:
        """Return the requests as columns, for check_slo: a failed request is a failed call, a hit one from the cache."""
        n = len(self.samples)
        nan = np.full(n, np.nan)
        cost = [np.nan if s.cost_usd is None else float(s.cost_usd) for s in self.samples]
        return Series(
            started_at=_column(self.samples, "due_s"), latency_s=_column(self.samples, "latency_s"), ttft_s=nan,
            cost_usd=np.array(cost, dtype=np.float64), saved_usd=nan, saved_s=nan, input_tokens=nan, output_tokens=nan,
            hit=np.array([s.source == "cache" for s in self.samples], dtype=np.bool_),
            failed=np.array([bool(s.error) for s in self.samples], dtype=np.bool_),
            model=np.zeros(n, dtype=np.int32), models=("service",),
        )  # fmt: skip


def _column(samples: Sequence[Sample], name: str) -> Floats:
    return np.array([getattr(sample, name) for sample in samples], dtype=np.float64)
