"""Weighted labels: e-values are fair under the hypothesis, bounds hold, and unequal selection is put right."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbllm.calibration import calibrate_threshold
from nbllm.calibration.betting import BETS, Wagers


@given(
    st.lists(st.tuples(st.floats(1, 50), st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=6),
    st.floats(0.01, 0.9),
)
def test_a_bet_is_never_better_than_fair(kinds: list[tuple[float, float, float]], rate: float) -> None:
    """Where the weighted error is above `rate`, the expected e-value of one label is at most 1, whatever the weights are."""
    weight, error, share = (np.array(column) for column in zip(*kinds, strict=True))
    truth = (share * weight * error).sum() / (share * weight).sum()
    if truth < rate:
        return
    e = {wrong: np.exp([Wagers(np.array([wrong]), np.array([w]), 50.0).log_e(rate)[1] for w in weight]) for wrong in (True, False)}
    expected = (share * (error * e[True] + (1 - error) * e[False])).sum() / share.sum()
    assert expected <= 1 + 1e-9


@given(st.lists(st.tuples(st.booleans(), st.floats(1, 20)), min_size=1, max_size=40), st.floats(1e-4, 0.2))
def test_the_bound_is_the_rate_that_the_test_refuses(rows: list[tuple[bool, float]], level: float) -> None:
    """At the bound the e-value reaches 1 / level, just below it does not; without a bound it never does."""
    wrong, weights = (np.array(column) for column in zip(*rows, strict=True))
    wagers = Wagers(wrong, weights, float(weights.max()))
    bound = wagers.upper(np.array([len(rows)]), np.array([level]))[0]
    if bound < 1:
        assert wagers.log_e(bound)[-1] >= -np.log(level) - 1e-6
        assert wagers.log_e(bound - 1e-5)[-1] < -np.log(level) + 1e-3
    assert bound > (weights[wrong].sum() / weights.sum()) - 1e-9


def test_many_different_weights_are_counted_by_classes_and_only_to_the_safe_side() -> None:
    """With more values than classes the bound is nearly that of each weight by itself, and never below it."""
    rng = np.random.default_rng(5)
    weights, wrong = rng.uniform(1, 30, 3_000), rng.random(3_000) < 0.03
    exact, size, level = Wagers(wrong, weights, 30.0), np.array([3_000]), np.array([0.01])
    classes = exact.upper(size, level)[0]
    logs = exact.log_e(classes)
    assert logs[-1] >= -np.log(0.01)
    assert exact.log_e(classes - 0.003)[-1] < -np.log(0.01)
    assert BETS.max() < 1


def test_equal_weights_are_no_weights() -> None:
    """Labels that all count the same get the exact binomial test; a heavier label that might have come makes a difference."""
    rng = np.random.default_rng(5)
    scores, correct = rng.random(600), rng.random(600) < 0.97
    plain = calibrate_threshold(scores, correct, max_error=0.1)
    same = calibrate_threshold(scores, correct, np.full(600, 50.0), max_error=0.1)
    assert (same.threshold, same.curve, same.weighted) == (plain.threshold, plain.curve, False)
    assert calibrate_threshold(scores, correct, np.full(600, 2.0), max_error=0.1, max_weight=50).weighted


def test_selection_by_score_is_put_right_by_weights() -> None:
    """Where doubtful rows were labelled ten times as often, the weighted hit and error rates are those of the traffic."""
    rng = np.random.default_rng(9)
    score = rng.random(40_000)
    right = rng.random(40_000) < 0.7 + 0.3 * score
    probability = np.where(score < 0.5, 0.5, 0.05)
    drawn = rng.random(40_000) < probability
    plan = calibrate_threshold(score[drawn], right[drawn], 1 / probability[drawn], max_error=0.2, origin="audit")
    assert plan.threshold is not None
    assert plan.weighted
    hits = score >= plan.threshold
    assert abs(plan.hit_rate - hits.mean()) < 0.02
    assert abs(plan.error_rate - (~right[hits]).mean()) < 0.02
    unweighted = calibrate_threshold(score[drawn], right[drawn], max_error=0.2, origin="audit")
    assert unweighted.hit_rate is None or unweighted.hit_rate < plan.hit_rate - 0.1, "doubtful rows are over-represented without"
