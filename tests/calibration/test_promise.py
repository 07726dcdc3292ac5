"""The promise, tried on worlds whose truth is known. The whole of it, with 1,000 draws each, is in tests/promises."""

from __future__ import annotations

import numpy as np
import pytest

from nbllm.calibration import calibrate_threshold, level_of_look
from tests.calibration.worlds import World, drawn, worlds

DRAWS = 100


def dice() -> np.random.Generator:
    """Return a generator of a test's own: one for all would give each test other draws in another order of tests."""
    return np.random.default_rng(20)


def tolerated(draws: int, share: float = 0.05) -> float:
    """Return 5% and two standard errors of so many draws."""
    return share + 2 * np.sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("max_error", [0.05, 0.2])
def test_the_true_error_is_within_the_bound(max_error: float) -> None:
    """In each world at most 5% of plans, and of curves with all their points, break their promise."""
    rng = dice()
    for world in worlds(max_error):
        broken = curves = 0
        for _ in range(DRAWS):
            plan = calibrate_threshold(*world.draw(500, rng), max_error=max_error)
            broken += plan.threshold is not None and world.error(plan.threshold) > max_error
            curves += world.breaks(plan.curve)
        assert broken <= DRAWS * tolerated(DRAWS), world.name
        assert curves <= DRAWS * tolerated(DRAWS), world.name


def test_refusing_is_no_escape() -> None:
    """Where labels hold 50 / max_error hits at half the error, a threshold is found in 9 of 10 draws, and serves most of them."""
    rng = np.random.default_rng(4)
    score = rng.random(50_000)
    half = drawn("half", score, np.where(score > 0.45, 0.05, 0.6), rng)
    plans = [calibrate_threshold(*half.draw(1_000, rng), max_error=0.1) for _ in range(60)]
    assert sum(plan.accepted for plan in plans) >= 54
    assert np.mean([half.hits(p.threshold) for p in plans if p.threshold is not None]) > 0.4 * 50_000


def boundary(max_error: float) -> World:
    """A score that says nothing, where hits are wrong just a little too often."""
    rng = np.random.default_rng(6)
    return drawn("boundary", rng.random(50_000), np.full(50_000, 1.01 * max_error), rng)


def test_looking_again_and_again_spends_the_level() -> None:
    """Labelling 20 at a time and stopping at the first acceptance is wrong in at most 5% of runs of 12 looks."""
    runs, looks, rng = 80, 12, dice()
    world = boundary(0.2)
    accepted = 0
    for _ in range(runs):
        scores, correct = world.draw(20 * looks, rng)
        steps = [(look, scores[: 20 * look], correct[: 20 * look]) for look in range(1, looks + 1)]
        accepted += any(calibrate_threshold(s, c, max_error=0.2, look=look).accepted for look, s, c in steps)
    assert accepted <= runs * tolerated(runs)


def test_all_looks_together_spend_what_was_promised() -> None:
    """The levels of a million looks add up to 5%, and no look is without any."""
    levels = [level_of_look(0.95, look) for look in range(1, 1_000_001)]
    assert 0.0499 < sum(levels) <= 0.05 + 1e-12
    assert min(levels) > 0


def test_weighted_plans_keep_the_promise_too() -> None:
    """With rows selected by score, one in five or all, weighted plans are wrong in at most 5% of draws; unweighted ones mostly."""
    world, rng = boundary(0.2), dice()
    tilted = drawn("tilted", world.scores, np.clip(0.1 + 0.3 * (world.scores < 0.5), 0, 1), rng)  # 25% wrong in all
    broken = {True: 0, False: 0}
    for _ in range(DRAWS):
        scores, correct = tilted.draw(2_000, rng)
        chance = np.where(scores < 0.5, 0.2, 1.0)  # the wrong half is labelled least
        kept = rng.random(2_000) < chance
        for weighted in (True, False):
            weights = 1 / chance[kept] if weighted else None
            plan = calibrate_threshold(scores[kept], correct[kept], weights, max_error=0.2)
            broken[weighted] += plan.threshold is not None and tilted.error(plan.threshold) > 0.2
    assert broken[True] <= DRAWS * tolerated(DRAWS)
    assert broken[False] > DRAWS / 2, "or this test would prove nothing"
