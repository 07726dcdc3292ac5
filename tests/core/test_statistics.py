"""Percentiles and what their samples allow, intervals, ECDFs and promises."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nbllm.core.ports import Series
from nbllm.core.statistics import (
    Criterion,
    SloReport,
    check_slo,
    ecdf,
    minimum_sample,
    quantile_interval,
    quantiles,
    require,
    summarise,
)
from nbllm.errors import InvalidRequest, SloViolated

SECONDS = hnp.arrays(np.float64, st.integers(0, 300), elements=st.floats(0, 1e6))


def series(latency_s, **columns) -> Series:
    """Return calls with these latencies; other columns by name, else zero, false or unknown."""
    latency_s = np.asarray(latency_s, dtype=np.float64)
    n, zero = latency_s.size, np.zeros(latency_s.size)
    rest = {
        "started_at": zero,
        "ttft_s": np.full(n, np.nan),
        "cost_usd": zero,
        "saved_usd": zero,
        "saved_s": zero,
        "input_tokens": zero,
        "output_tokens": zero,
        "hit": np.zeros(n, dtype=np.bool_),
        "failed": np.zeros(n, dtype=np.bool_),
        "model": np.zeros(n, dtype=np.int32),
        "models": ("m",),
    }
    return Series(latency_s=latency_s, **(rest | {name: np.asarray(column) for name, column in columns.items()}))


@given(values=SECONDS, q=st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.95, 0.99]))
def test_a_quantile_is_the_smallest_value_that_covers_its_share(values, q):
    """Nearest rank: at least q of the values are at or below it, and fewer than q are below it; None when the sample is small."""
    (found,) = quantiles(values, q)
    if values.size < minimum_sample(q):
        assert found is None
        return
    assert found in values
    assert np.count_nonzero(values <= found) >= q * values.size - 1e-6
    assert np.count_nonzero(values < found) < q * values.size + 1e-6


def test_the_quantiles_agree_with_numpy():
    """Nearest rank is numpy's "inverted_cdf"."""
    values = np.random.default_rng(7).lognormal(size=1_001)
    for q in (0.5, 0.95, 0.99):
        assert quantiles(values, q) == (float(np.quantile(values, q, method="inverted_cdf")),)


def test_no_p99_from_fewer_than_a_hundred_calls():
    """P99 is claimed from 100 calls on, P95 from 20, the median from the first; unknown values do not count."""
    assert [minimum_sample(q) for q in (0.5, 0.9, 0.95, 0.99)] == [1, 10, 20, 100]
    assert quantiles(np.arange(99.0), 0.5, 0.95, 0.99) == (49.0, 94.0, None)
    assert quantiles(np.arange(100.0), 0.99) == (98.0,)
    assert quantiles(np.append(np.arange(99.0), np.nan), 0.99) == (None,)
    assert quantiles(np.arange(19.0), 0.95) == (None,)
    assert quantiles(np.empty(0), 0.5, 0.99) == (None, None)


@pytest.mark.parametrize("q", [0.0, 1.0, -1.0, math.nan])
def test_only_real_quantiles_are_asked_for(q):
    """0, 1 and NaN are no quantiles that a sample can tell."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantiles(np.arange(5.0), q)


def test_the_interval_is_the_textbook_s():
    """The median of 20 values has X(6) and X(15) as its 95% bounds (Conover, table of the binomial: coverage 0.9586)."""
    interval = quantile_interval(np.arange(1.0, 21.0), 0.5)
    assert (interval.low, interval.high) == (6.0, 15.0)
    assert quantile_interval(np.arange(10.0), 0.99).high is None
    assert quantile_interval(np.empty(0), 0.5).low is None


@pytest.mark.parametrize(("n", "q"), [(5, 0.5), (30, 0.5), (40, 0.95), (120, 0.95), (400, 0.99), (999, 0.1)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_covers_at_least_what_it_says(n, q, confidence):
    """By exact binomial arithmetic each bound misses with a chance of at most (1 - confidence) / 2, and no tighter one would do."""

    def below(k: int) -> float:
        return sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k + 1))

    interval, tail = quantile_interval(np.arange(1.0, n + 1), q, confidence), (1 - confidence) / 2 + 1e-9
    if interval.low is None:
        assert below(0) > tail - 2e-9
    else:
        assert below(int(interval.low) - 1) <= tail
        assert below(int(interval.low)) > tail - 2e-9
    if interval.high is None:
        assert 1 - below(n - 1) > tail - 2e-9
    else:
        assert 1 - below(int(interval.high) - 1) <= tail
        assert 1 - below(int(interval.high) - 2) > tail - 2e-9


def test_the_interval_holds_in_simulation():
    """Over 400 seeded samples of 200 the P95's interval holds the true P95 in at least 95% of cases, less chance."""
    rng = np.random.default_rng(3)
    true = -math.log(1 - 0.95)
    held = 0
    for _ in range(400):
        interval = quantile_interval(rng.exponential(size=200), 0.95)
        held += interval.low <= true <= interval.high
    assert held >= 370


@given(values=SECONDS, points=st.integers(20, 60))
def test_a_thinned_ecdf_stays_on_the_curve(values, points):
    """Kept points lie on the full curve; between them it is off by at most 1/(0.9 points - 2); ends and the slow tail are exact."""
    x, y = ecdf(values, points)
    assert x.size <= max(points, 1)
    if not values.size:
        assert x.size == y.size == 0
        return
    full = np.sort(values)
    assert (np.diff(x) > 0).all()
    np.testing.assert_allclose(y, [np.count_nonzero(full <= one) / full.size for one in x])
    assert (x[0], x[-1], y[-1]) == (full[0], full[-1], 1.0)
    steps = np.concatenate(([0.0], y))[np.searchsorted(x, full, side="right")]
    off = np.abs(steps - np.searchsorted(full, full, side="right") / full.size)
    assert off.max() <= (1 / (0.9 * points - 2) if full.size > points else 1e-12)
    tail = full[-(points // 10) :]
    assert np.isin(tail, x).all()


def test_a_summary_keeps_hits_and_failures_apart():
    """Percentiles of model calls do not see a cached hit's microseconds nor a failure's time; both are counted."""
    calls = series(
        [1.0, 2.0, 3.0, 1e-5, 1e-5, 300.0, np.nan],
        hit=[False, False, False, True, True, False, False],
        failed=[False, False, False, False, False, True, False],
        ttft_s=[0.1, np.nan, 0.3, np.nan, np.nan, np.nan, np.nan],
    )
    summary = summarise(calls)
    assert (summary.n, summary.p50_s, summary.mean_s, summary.p95_s, summary.p99_s) == (3, 2.0, 2.0, None, None)
    assert (summary.failed, summary.hits, summary.of) == (1, 2, "model")
    assert summarise(calls, "hits").p50_s == 1e-5
    assert summarise(calls, "all").n == 5
    assert summarise(calls, ttft=True).p50_s == 0.1
    assert summarise(series([])).p50_s is None


def test_promises_that_hold():
    """A report names each promise with what was measured, what is allowed and from how many calls."""
    calls = series(np.linspace(0.01, 1.0, 100), ttft_s=np.linspace(0.001, 0.1, 100), cost_usd=np.full(100, 0.002))
    report = require(check_slo(calls, p50_s=0.5, p95_s=0.95, p99_s=1.0, ttft_p95_s=0.1, error_rate=0.0, cost_usd=0.002))
    assert report
    assert [(c.name, round(c.measured, 6), c.n) for c in report.criteria] == [
        ("p50_s", 0.5, 100),
        ("p95_s", 0.95, 100),
        ("p99_s", 0.99, 100),
        ("ttft_p95_s", 0.095, 100),
        ("error_rate", 0.0, 100),
        ("cost_usd", 0.002, 100),
    ]


def test_a_broken_promise_raises_with_the_numbers():
    """The error says what was measured, what was allowed, from how many calls, and is an AssertionError for tests."""
    failed = np.arange(100) % 10 == 0
    with pytest.raises(SloViolated) as caught:
        require(check_slo(series(np.full(100, 3.0), failed=failed), p95_s=2.0, error_rate=0.2))
    assert isinstance(caught.value, AssertionError)
    assert "FAIL p95_s: 3, at most 2 allowed, n = 90" in str(caught.value)
    assert "ok   error_rate: 0.1, at most 0.2 allowed, n = 100" in str(caught.value)
    assert str(caught.value).startswith("1 of 2 promises hold, 1 does not over 100 calls")


def test_no_data_is_a_failure_of_its_own():
    """Nothing measured is not a promise kept, and the message says that there were no calls."""
    with pytest.raises(SloViolated, match="no call was measured"):
        require(check_slo(series([]), p95_s=2.0, error_rate=0.1))
    with pytest.raises(SloViolated, match="include_hits"):
        require(check_slo(series([1e-5] * 30, hit=np.ones(30, dtype=np.bool_)), p95_s=2.0))


def test_too_few_calls_and_unknown_costs_do_not_hold():
    """A P99 of 37 calls and a cost with unknown parts cannot be checked, and the report says why."""
    cost_usd = np.full(37, 0.001)
    cost_usd[3] = np.nan
    report = check_slo(series(np.ones(37), cost_usd=cost_usd), p50_s=2.0, p99_s=2.0, cost_usd=1.0, ttft_p95_s=1.0)
    assert not report.ok
    assert [criterion.ok for criterion in report.criteria] == [True, False, False, False]
    assert "needs 100 calls or more, there are 37" in str(report)
    assert "unknown for 1 of 37 calls" in str(report)
    assert "no calls with a known time" in str(report)


def test_hits_count_only_when_asked_for():
    """A cache full of hits does not make a slow model pass, unless the promise is about both."""
    calls = series([3.0] * 20 + [1e-5] * 980, hit=np.arange(1000) >= 20)
    assert not check_slo(calls, p95_s=2.0)
    assert check_slo(calls, p95_s=2.0, include_hits=True)


@pytest.mark.parametrize("bad", [{}, {"p95_s": -1.0}, {"p95_s": math.nan}, {"error_rate": math.inf}])
def test_promises_that_make_no_sense_are_refused(bad):
    """No promise, or one that is no number of 0 or more, is a mistake of the caller's and is said."""
    with pytest.raises(InvalidRequest):
        check_slo(series([1.0]), **bad)


def test_a_million_calls_are_summed_up_quickly():
    """A summary, a check and an ECDF of 1,000,000 calls take well under a second together (about 0.2 s on an idle machine)."""
    rng = np.random.default_rng(1)
    calls = series(rng.lognormal(size=1_000_000), hit=rng.random(1_000_000) < 0.3)
    started = time.process_time()
    assert summarise(calls).n + summarise(calls, "hits").n == 1_000_000
    check_slo(calls, p95_s=1.0, p99_s=1.0)
    assert ecdf(calls.latency_s)[0].size <= 2_000
    assert time.process_time() - started < 1.0


def test_a_report_shows_its_verdict_and_tells_missed_from_unknown() -> None:
    """In a cell it reads as sentences; too few calls are no broken promise, and the error says so too."""
    report = SloReport((Criterion("p50_s", 0.5, 1.0, 1), Criterion("p99_s", None, 2.0, 1, "needs 100 calls or more")), 1)
    assert repr(report) == (
        "1 of 2 promises hold, 1 cannot be told yet over 1 call.\n"
        "ok   p50_s: 0.5, at most 1 allowed, n = 1\n"
        "??   p99_s: cannot tell yet, at most 2 allowed: needs 100 calls or more"
    )
    with pytest.raises(SloViolated, match="cannot tell yet") as caught:
        require(report)
    assert "FAIL" not in str(caught.value)
    assert "make more calls" in caught.value.hint
    missed = SloReport((Criterion("p50_s", 2.0, 1.0, 1),), 1)
    assert missed.verdict() == "0 of 1 promise holds, 1 does not over 1 call."
