"""Load tests: when requests are due, and what the numbers say."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.arrivals import LoadPlan, LoadResult, Sample
from nbllm.core.statistics import check_slo, quantiles
from nbllm.errors import InvalidRequest

plans = st.builds(
    LoadPlan,
    users=st.integers(1, 200),
    seconds=st.floats(1, 60),
    every_s=st.floats(0.5, 5),
    even=st.booleans(),
    seed=st.integers(0, 2**32),
).flatmap(lambda plan: st.floats(0, plan.seconds).map(lambda ramp_s: LoadPlan(**{**_fields(plan), "ramp_s": ramp_s})))


def _fields(plan: LoadPlan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in ("users", "seconds", "every_s", "even", "seed", "limit_s")}


@given(plans)
def test_requests_are_due_within_the_test_in_order_and_as_many_as_the_users_ask(plan: LoadPlan) -> None:
    """All times lie in the test, sorted; their number is the expected one, exactly when even and within chance otherwise."""
    times = plan.arrivals()
    assert (np.diff(times) >= 0).all()
    assert times.size == 0 or (times[0] >= 0 and times[-1] <= plan.seconds * (1 + 1e-9))
    if plan.even:
        assert abs(times.size - plan.requests) <= 1
    else:
        assert abs(times.size - plan.requests) <= 6 * plan.requests**0.5 + 6


@given(plans)
def test_a_seed_gives_the_same_test_again(plan: LoadPlan) -> None:
    """Arrivals are fixed before anything is sent."""
    assert np.array_equal(plan.arrivals(), plan.arrivals())


def test_a_ramp_sends_a_quarter_of_its_requests_in_its_first_half() -> None:
    """Users come evenly: the rate grows in a line, the count with its square."""
    plan = LoadPlan(users=1000, seconds=10, ramp_s=10, even=True)
    times = plan.arrivals()
    assert np.count_nonzero(times < 5) == pytest.approx(times.size / 4, abs=2)
    after = LoadPlan(users=100, seconds=20, ramp_s=10, even=True).arrivals()
    assert np.count_nonzero(after >= 10) == pytest.approx(1000, abs=2)


def test_by_chance_gaps_are_those_of_a_poisson_process() -> None:
    """Mean and standard deviation of the gaps are equal: independent users."""
    gaps = np.diff(LoadPlan(users=1000, seconds=60, seed=3).arrivals())
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)


@pytest.mark.parametrize(
    "wrong", [{"users": 0}, {"seconds": float("inf")}, {"every_s": -1.0}, {"ramp_s": 30.0}, {"users": 100_000, "seconds": 600.0}]
)
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequest, match="Nothing was sent"):
        LoadPlan(**{"seconds": 20.0, **wrong})  # type: ignore[arg-type]


def result() -> LoadResult:
    """Two hundred requests: one in ten refused, the rest ever slower, half of them from the cache."""
    samples = [
        Sample(
            due_s=i * 0.1, late_s=0.0, latency_s=0.01 * (i + 1), error="HTTP 429" if i % 10 == 0 else "",
            status=429 if i % 10 == 0 else 200, cost_usd=None if i == 1 else Decimal("0.001"),
            source="cache" if i % 2 else "model",
        )
        for i in range(200)
    ]  # fmt: skip
    return LoadResult(LoadPlan(users=10, seconds=20), samples)


def test_the_numbers_count_failures_apart() -> None:
    """Percentiles are of the answered ones; errors are counted by kind; unknown costs are counted, not taken for 0."""
    found = result()
    answered = np.array([s.latency_s for s in found.samples if not s.error])
    assert found.percentiles() == quantiles(answered, 0.5, 0.95, 0.99)
    assert found.errors() == {"HTTP 429": 20}
    assert found.cost_usd() == (Decimal("0.179"), 1)
    assert found.sources() == {"cache": 100, "model": 80}


def test_windows_show_what_changes_over_time() -> None:
    """Each request is in one stretch; no P95 is claimed from a stretch with fewer than 20 answers."""
    windows = result().windows(4)
    assert [w.sent for w in windows] == [50, 50, 50, 50]
    medians = [w.p50_s for w in windows]
    assert medians == sorted(medians)  # type: ignore[type-var]
    assert len(result().windows(20)) == 6
    few = LoadResult(LoadPlan(users=10, seconds=20), result().samples[1::10])
    assert [(w.sent, w.p95_s) for w in few.windows(20)] == [(5, None)] * 4
    assert LoadResult(LoadPlan(), []).windows() == []


def test_a_promise_is_checked_on_all_requests() -> None:
    """An error rate counts refused requests; latency those that were answered, hits too."""
    report = check_slo(result().series(), p95_s=0.5, error_rate=0.05, include_hits=True)
    assert [criterion.ok for criterion in report.criteria] == [False, False]
    assert report.criteria[1].measured == pytest.approx(0.1)
