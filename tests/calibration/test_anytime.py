"""Audits of a plan that is on: turned off when it breaks its promise, and hardly ever when it keeps it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.calibration import audit_verdict, error_lower_bound
from nbllm.errors import InvalidLabels


def test_a_plan_that_keeps_its_promise_stays_on() -> None:
    """At exactly the error allowed, looked at after each of 2,000 audits, at most 5% of plans are ever turned off."""
    rng = np.random.default_rng(1)
    runs = 150
    off = sum(audit_verdict(rng.random(2_000) >= 0.05, max_error=0.05).exceeded for _ in range(runs))
    assert off <= runs * (0.05 + 2 * np.sqrt(0.05 * 0.95 / runs))


def test_a_plan_that_breaks_its_promise_is_turned_off() -> None:
    """At twice and four times the error allowed, it takes some hundred and some tens of audits."""
    rng = np.random.default_rng(2)
    for times, within in ((2, 1_500), (4, 250)):
        verdicts = [audit_verdict(rng.random(within) >= 0.05 * times, max_error=0.05) for _ in range(30)]
        assert sum(verdict.exceeded for verdict in verdicts) >= 27
        assert all(verdict.exceeded_at is not None for verdict in verdicts if verdict.exceeded)


def test_weighted_audits_are_judged_by_what_they_stand_for() -> None:
    """Errors only among hits that are audited ten times as often do not turn a plan off whose traffic is within its bound."""
    rng = np.random.default_rng(3)
    often = rng.random(4_000) < 0.5
    weights = np.where(often, 1.0, 10.0)  # of the traffic a tenth of these hits
    correct = ~(often & (rng.random(4_000) < 0.3))
    assert audit_verdict(correct, max_error=0.05).exceeded
    verdict = audit_verdict(correct, weights, max_error=0.05)
    assert not verdict.exceeded
    assert verdict.error_rate == pytest.approx(0.3 / 11, abs=0.005)
    assert audit_verdict(correct, weights, max_error=0.01).exceeded


def test_once_exceeded_it_stays_so() -> None:
    """The verdict is of all times: good audits later do not take it back, and the bound does not fall."""
    correct = np.concatenate((np.zeros(30), np.ones(3_000)))
    early, late = audit_verdict(correct[:30], max_error=0.05), audit_verdict(correct, max_error=0.05)
    assert early.exceeded
    assert late.exceeded
    assert late.exceeded_at == early.exceeded_at is not None
    assert late.error_lower >= early.error_lower > 0.5


@given(st.lists(st.booleans(), max_size=80), st.floats(0.5, 0.99))
def test_the_bound_agrees_with_the_verdict(correct: list[bool], confidence: float) -> None:
    """The verdict says the same as the bound; the bound is never above the worst share of errors so far, and 0 without any."""
    bound = error_lower_bound(correct, confidence=confidence)
    assert audit_verdict(correct, max_error=0.1, confidence=confidence).error_lower == bound
    if abs(bound - 0.1) > 1e-6:
        assert audit_verdict(correct, max_error=0.1, confidence=confidence).exceeded == (bound > 0.1)
    wrong = np.cumsum(~np.array(correct, dtype=bool))
    assert 0 <= bound <= max((wrong / np.arange(1, len(correct) + 1)).max(initial=0.0), 0.0) + 1e-9


def test_no_audits_yet() -> None:
    """A plan that was just switched on has an empty verdict; bad rates and columns are refused."""
    verdict = audit_verdict([], max_error=0.05)
    assert (verdict.n, verdict.error_rate, verdict.error_lower, verdict.exceeded) == (0, None, 0.0, False)
    with pytest.raises(InvalidLabels):
        audit_verdict([True], max_error=5)
    with pytest.raises(InvalidLabels):
        audit_verdict([True], [0.02], max_error=0.05)
    with pytest.raises(InvalidLabels):
        audit_verdict([[True]], max_error=0.05)
