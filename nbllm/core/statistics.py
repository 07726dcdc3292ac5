"""Percentiles, their uncertainty, ECDFs and SLO checks over columns of calls. Loads numpy: import it late.

Percentiles are nearest-rank (the smallest observed value that at least a share q of the values does not exceed), so that each
is a latency that happened, lies on the ECDF, and agrees with the order-statistic intervals. A percentile is claimed only from a
sample that has at least one value beyond it: P99 from 100 calls on, P95 from 20 on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nbllm.core.ports import Series
from nbllm.errors import InvalidRequest, SloViolated

Floats = NDArray[np.float64]
Which = Literal["model", "hits", "all"]

ECDF_POINTS = 2_000


def minimum_sample(q: float) -> int:
    """Return from how many values the quantile q (0 < q < 1) is claimed: 1 up to the median, then 1 / (1 - q)."""
    _check_q(q)
    return 1 if q <= 0.5 else math.ceil(1 / (1 - q) - 1e-9)


def quantiles(values: Floats, *qs: float) -> tuple[float | None, ...]:
    """Return the nearest-rank quantiles qs (0 < q < 1), None where the sample is too small for one. NaN values are left out."""
    known = _known(values)
    ranks = [_rank(q, known.size) if known.size >= minimum_sample(q) else None for q in qs]
    wanted = sorted({rank for rank in ranks if rank is not None})
    if not wanted:
        return (None,) * len(qs)
    parted = np.partition(known, wanted)
    return tuple(None if rank is None else float(parted[rank]) for rank in ranks)


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds that hold the true quantile with at least `confidence`; None: the sample is too small for that bound."""

    low: float | None
    high: float | None
    confidence: float


def quantile_interval(values: Floats, q: float, confidence: float = 0.95) -> Interval:
    """Return a distribution-free confidence interval of the quantile q from order statistics.

    The number of values at or below the true quantile is binomial(n, q), whatever the distribution; the bounds are the order
    statistics that cut off at most (1 - confidence) / 2 on each side (W. J. Conover, Practical Nonparametric Statistics, 3rd ed.,
    section 3.2; H. A. David and H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1). Assumes independent calls.
    """
    _check_q(q)
    _check_q(confidence, "confidence")
    known = np.sort(_known(values))
    if not known.size:
        return Interval(None, None, confidence)
    counts, cumulative = _binomial_cdf(known.size, q)
    tail = (1 - confidence) / 2
    # low = X_(l) with the largest l for which P(B <= l - 1) <= tail; high = X_(u) with the smallest u for which P(B >= u) <= tail.
    l_rank = int(counts[0]) + int(np.searchsorted(cumulative, tail, side="right"))
    u_rank = int(counts[0]) + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    low = float(known[l_rank - 1]) if 1 <= l_rank <= known.size else None
    high = float(known[u_rank - 1]) if u_rank <= known.size else None
    return Interval(low, high, confidence)


def ecdf(values: Floats, max_points: int = ECDF_POINTS) -> tuple[Floats, Floats]:
    """Return (x, y) of the empirical distribution as steps: y is the share of values <= x. NaN values are left out.

    More values than max_points are thinned: evenly over ranks, with the slowest tenth of the points kept one by one, the
    smallest and the largest among them. The curve stays within 1 / (0.9 * max_points - 2) of the full one, and its tail is exact.
    """
    known = np.sort(_known(values))
    n = known.size
    if n > max_points:
        tail = max_points // 10
        body = np.linspace(0, n - tail - 1, max_points - tail).astype(np.int64)
        kept = known[np.concatenate((body, np.arange(n - tail, n)))]
    else:
        kept = known
    x = np.unique(kept)
    return x, np.searchsorted(known, x, side="right") / max(1, n)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Seconds of the calls that answered; None: unknown, or too few calls.

    n: answered calls with a known time, on which the percentiles and the mean rest. failed: calls that no model and no fresh
    entry answered (see Series); hits: calls served from the cache (both counted apart, whatever the percentiles are of). `of`
    says what those are of.
    """

    of: Which
    n: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    mean_s: float | None
    failed: int
    hits: int


def summarise(series: Series, of: Which = "model", *, ttft: bool = False) -> LatencySummary:
    """Return the latency summary of the calls that a model answered, of the hits, or of both; of the first token with ttft=True."""
    seconds = series.ttft_s if ttft else series.latency_s
    known = _known(seconds[_chosen(series, of) & ~series.failed])
    p50_s, p95_s, p99_s = quantiles(known, 0.50, 0.95, 0.99)
    return LatencySummary(
        of=of,
        n=known.size,
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        mean_s=float(known.mean()) if known.size else None,
        failed=int(np.count_nonzero(series.failed)),
        hits=int(np.count_nonzero(series.hit)),
    )


# ---------------------------------------------------------------------------------------------------- promises


@dataclass(frozen=True, slots=True)
class Criterion:
    """One promise beside what was measured. measured None: could not be measured, and `why` says why; then it does not hold."""

    name: str
    measured: float | None
    allowed: float
    n: int
    why: str = ""

    @property
    def ok(self) -> bool:
        """Whether the promise holds."""
        # Means of floats are a rounding error off: a thousand calls of $0.002 must keep a promise of $0.002.
        return self.measured is not None and self.measured <= self.allowed * (1 + 1e-9)

    def __str__(self) -> str:
        """Return one line with the numbers."""
        if self.measured is None:
            return f"??   {self.name}: cannot tell yet, at most {self.allowed:g} allowed: {self.why}"
        sign = "ok  " if self.ok else "FAIL"
        return f"{sign} {self.name}: {self.measured:.4g}, at most {self.allowed:g} allowed, n = {self.n}"


@dataclass(frozen=True, slots=True)
class SloReport:
    """All promises of one check. `calls`: how many calls were looked at. True where every promise holds."""

    criteria: tuple[Criterion, ...]
    calls: int

    @property
    def ok(self) -> bool:
        """Whether every promise holds."""
        return all(criterion.ok for criterion in self.criteria)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        """Return one line a promise."""
        return "\n".join(map(str, self.criteria))

    def __repr__(self) -> str:
        """Return the verdict and one line a promise: this is what a cell shows."""
        return f"{self.verdict()}\n{self}"

    def verdict(self) -> str:
        """Return in one sentence how many promises hold, how many do not, and how many cannot be told yet."""
        held = sum(criterion.ok for criterion in self.criteria)
        unknown = sum(criterion.measured is None for criterion in self.criteria)
        missed, count = len(self.criteria) - held - unknown, len(self.criteria)
        parts = [f"{held} of {count} {'promise holds' if count == 1 else 'promises hold'}"]
        parts += [f"{missed} {'does' if missed == 1 else 'do'} not"] if missed else []
        parts += [f"{unknown} cannot be told yet"] if unknown else []
        return f"{', '.join(parts)} over {self.calls:,} {'call' if self.calls == 1 else 'calls'}."


def check_slo(
    series: Series,
    *,
    p50_s: float | None = None,
    p95_s: float | None = None,
    p99_s: float | None = None,
    ttft_p95_s: float | None = None,
    error_rate: float | None = None,
    cost_usd: float | None = None,
    include_hits: bool = False,
) -> SloReport:
    """Measure the promises that are given (at most so much) and return each beside what it allows; `require` raises.

    p50_s, p95_s, p99_s: latency of answered calls; ttft_p95_s: first token of streamed ones. error_rate: failed calls over all, 0
    to 1; a call whose models failed counts as failed even if a stale or static answer rescued it, and so does one that was
    cancelled. cost_usd: mean USD a call; one call of unknown cost makes it unknown. Hits are left out unless include_hits. What
    cannot be measured (no calls, or too few for the percentile) does not hold. Raises InvalidRequest without a promise, or for
    one that is no number of 0 or more.
    """
    times = {"p50_s": (p50_s, 0.50), "p95_s": (p95_s, 0.95), "p99_s": (p99_s, 0.99), "ttft_p95_s": (ttft_p95_s, 0.95)}
    rates = {"error_rate": error_rate, "cost_usd": cost_usd}
    _check_allowed({name: allowed for name, (allowed, _) in times.items()} | rates)
    chosen = _chosen(series, "all" if include_hits else "model")
    answered = chosen & ~series.failed
    criteria = []
    for name, (allowed, q) in times.items():
        if allowed is not None:
            seconds = series.ttft_s if name == "ttft_p95_s" else series.latency_s
            criteria.append(_timed(name, _known(seconds[answered]), q, allowed))
    if error_rate is not None:
        criteria.append(_mean("error_rate", series.failed[chosen].astype(np.float64), error_rate))
    if cost_usd is not None:
        criteria.append(_mean("cost_usd", series.cost_usd[chosen], cost_usd))
    return SloReport(tuple(criteria), int(np.count_nonzero(chosen)))


def require(report: SloReport) -> SloReport:
    """Return the report, or raise SloViolated with its numbers."""
    if report.ok:
        return report
    if not report.calls:
        raise SloViolated(
            f"No promise could be checked, because no call was measured:\n{report}",
            hint="Make the calls first; cached hits count only with include_hits=True.",
        )
    unknown = any(criterion.measured is None for criterion in report.criteria)
    hint = "What cannot be told counts as not held: make more calls, or promise a percentile that fewer calls can show (P50)."
    raise SloViolated(repr(report), hint=hint if unknown else "")


def _timed(name: str, known: Floats, q: float, allowed: float) -> Criterion:
    (measured,) = quantiles(known, q)
    need = minimum_sample(q)
    why = "" if measured is not None else _too_few(known.size, need)
    return Criterion(name, measured, allowed, known.size, why)


def _too_few(n: int, need: int) -> str:
    return f"needs {need} calls or more, there {'is' if n == 1 else 'are'} {n}" if n else "no calls with a known time"


def _mean(name: str, values: Floats, allowed: float) -> Criterion:
    unknown = int(np.count_nonzero(np.isnan(values)))
    if not values.size:
        return Criterion(name, None, allowed, 0, "no calls")
    if unknown:
        return Criterion(name, None, allowed, values.size, f"unknown for {unknown} of {values.size} calls")
    return Criterion(name, float(values.mean()), allowed, values.size)


def _check_allowed(promises: dict[str, float | None]) -> None:
    given = {name: allowed for name, allowed in promises.items() if allowed is not None}
    if not given:
        raise InvalidRequest("check_slo was given no promise to check.", hint=f"Give at least one of {', '.join(promises)}.")
    for name, allowed in given.items():
        if not (math.isfinite(allowed) and allowed >= 0):
            raise InvalidRequest(f"{name}={allowed!r} cannot be held: a promise is a number of 0 or more.")


def _chosen(series: Series, of: Which) -> NDArray[np.bool_]:
    if of == "all":
        return np.ones(series.hit.shape, dtype=np.bool_)
    return series.hit if of == "hits" else ~series.hit


def _known(values: Floats) -> Floats:
    unknown = np.isnan(values)
    return values[~unknown] if unknown.any() else values


def _rank(q: float, n: int) -> int:
    """Return the 0-based nearest rank; 1e-9 because 0.95 * 20 must be 19 and not a rounding error more."""
    return max(0, math.ceil(q * n - 1e-9) - 1)


def _check_q(q: float, name: str = "q") -> None:
    if not 0 < q < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {q!r}.")


def _binomial_cdf(n: int, q: float) -> tuple[NDArray[np.int64], Floats]:
    """Return (k, P(B <= k)) of binomial(n, q) for all k whose probability can be told from 0.

    Ratios of neighbours, summed in logarithms and normalised: no factorials, no overflow, and for a million calls only the
    few thousand counts around n * q. Ten standard deviations leave out less than 1e-20.
    """
    spread = 10 * math.sqrt(n * q * (1 - q)) + 20
    counts = np.arange(max(0, math.floor(n * q - spread)), min(n, math.ceil(n * q + spread)) + 1, dtype=np.int64)
    before = counts[:-1].astype(np.float64)
    log_mass = np.concatenate(([0.0], np.cumsum(np.log((n - before) / (before + 1)) + math.log(q / (1 - q)))))
    mass = np.exp(log_mass - log_mass.max())
    return counts, np.minimum(1.0, np.cumsum(mass) / mass.sum())
