"""What calibrate_threshold promises, by 1,000 draws of labels each from worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from nbllm.calibration import audit_verdict, calibrate_threshold
from nbllm.core.ports.matches import Label
from nbllm.semantic_plans import calibration_of
from nbllm.storage.memory_matches import MemoryMatches
from tests.calibration.worlds import World, drawn, worlds
from tests.promises.pairs import question_pairs

pytestmark = pytest.mark.timeout(1_500)

DRAWS = 1_000
ALLOWED = DRAWS * 0.05 + 2 * np.sqrt(DRAWS * 0.05 * 0.95)
LIMITS = (0.01, 0.05, 0.1, 0.2)
SIZES = (500, 2_000)


def broken(truth: World, n: int, max_error: float, seed: int) -> tuple[int, int]:
    """Draw labels DRAWS times; return how many plans, and how many whole curves with their plans, do not hold."""
    rng = np.random.default_rng(seed)
    plans = curves = 0
    for _ in range(DRAWS):
        plan = calibrate_threshold(*truth.draw(n, rng), max_error=max_error)
        plans += plan.threshold is not None and truth.error(plan.threshold) > max_error
        curves += truth.breaks(plan.curve)
    return plans, curves


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("max_error", LIMITS)
@pytest.mark.parametrize("number", range(9))
def test_the_true_error_is_within_the_bound(number: int, max_error: float, n: int) -> None:
    """In no simulated world do more than 5% of plans, or of curves with all their points, break their promise."""
    truth = worlds(max_error)[number]
    plans, curves = broken(truth, n, max_error, seed=number)
    assert plans <= ALLOWED, truth.name
    assert curves <= ALLOWED, truth.name


def test_every_world_is_tried() -> None:
    """The parameters above name each of them."""
    assert len(worlds(0.05)) == 9


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("max_error", LIMITS)
def test_the_true_error_is_within_the_bound_on_real_pairs(max_error: float, n: int) -> None:
    """Labels drawn with replacement from real question pairs, all of them being the truth: at most 5% of plans break it."""
    plans, curves = broken(question_pairs(), n, max_error, seed=1)
    assert plans <= ALLOWED
    assert curves <= ALLOWED


def half_error(max_error: float, share: float, kind: str) -> World:
    """Return a world with half the error in a top share of the hits; below it most are wrong at once, or more and more."""
    rng = np.random.default_rng(8)
    score = rng.random(50_000)
    below = np.where(score > 1 - share, max_error / 2, 0.6)
    if kind == "blurred":
        below = np.where(score > 1 - share, max_error / 2, np.minimum(0.6, max_error / 2 + 2 * (1 - share - score)))
    if kind == "ties":
        score = np.where(score > 1 - share, np.ceil((score - 1) * 8 / share) / 8 + 2, np.round(score, 1))
    return drawn(kind, score, below, rng)


@pytest.mark.parametrize("kind", ["sharp", "blurred", "ties"])
@pytest.mark.parametrize(("max_error", "n"), [(0.05, 2_000), (0.1, 2_000), (0.2, 2_000), (0.2, 500)])
@pytest.mark.parametrize("times", [1.0, 1.2, 1.6, 1.9])
def test_refusing_is_no_escape(kind: str, max_error: float, n: int, times: float) -> None:
    """Where the labels hold 50 / max_error hits or more at half the error, a threshold is found in at least 90% of the draws."""
    least = 50 / max_error
    truth = half_error(max_error, least * times / n, kind)
    threshold = float(np.sort(truth.scores)[-int(least * times / n * truth.scores.size)])
    rng = np.random.default_rng(3)
    found = tried = 0
    while tried < DRAWS // 2:
        scores, correct = truth.draw(n, rng)
        if np.count_nonzero(scores >= threshold) >= least:
            tried += 1
            found += calibrate_threshold(scores, correct, max_error=max_error).accepted
    assert found >= 0.9 * tried


@pytest.mark.parametrize("max_error", [0.05, 0.2])
def test_labelling_until_it_fits_keeps_the_promise(max_error: float) -> None:
    """20 labels at a time, stopping at the first acceptance, true error 1.01 x max_error: at most 5% of 1,000 runs accept."""
    accepted = sum(_ever_accepted(max_error, counting=True, seed=run) for run in range(DRAWS))
    assert accepted <= ALLOWED


def test_forgetting_to_count_looks_does_not() -> None:
    """The same with look=1 each time is wrong more often than counted: this is what counting looks is for."""
    runs = 200
    counted, forgotten = (sum(_ever_accepted(0.2, counting=c, seed=run) for run in range(runs)) for c in (True, False))
    assert forgotten > max(counted, 0.05 * runs)


def _ever_accepted(max_error: float, *, counting: bool, seed: int, most: int = 600) -> bool:
    rng = np.random.default_rng(seed)
    scores, correct = rng.random(most), rng.random(most) >= 1.01 * max_error
    return any(
        calibrate_threshold(scores[:n], correct[:n], max_error=max_error, look=n // 20 if counting else 1).accepted
        for n in range(20, most + 1, 20)
    )


def _ever_applied(max_error: float, seed: int, *, embedders: int = 12, n: int = 300) -> bool:
    """Whether somebody who tries embedders one after the other, each with labels of its own, is ever given a plan."""
    rng, home = np.random.default_rng(seed), MemoryMatches()
    for number in range(embedders):
        made = {"embedder": f"lab/{number}", "guards": "1 all"}
        labels = [
            Label(
                label_id=f"{number}-{row}", at=0.0, correct=bool(rng.random() >= 1.01 * max_error), origin="audit",
                score=float(rng.random()), scope="s", query="", question="", probability=1.0, match_id=f"{number}-{row}", **made,
            )
            for row in range(n)
        ]  # fmt: skip
        if calibration_of(labels, index_rows=n, look=home.look, max_error=max_error, **made).plan.accepted:
            return True
    return False


@pytest.mark.parametrize("max_error", [0.05, 0.2])
def test_trying_embedders_until_one_fits_keeps_the_promise(max_error: float) -> None:
    """Twelve embedders, each 1.01 x max_error wrong at every similarity, the first plan taken: at most 5% of homes get one."""
    accepted = sum(_ever_applied(max_error, seed=run) for run in range(DRAWS))
    assert accepted <= ALLOWED


@pytest.mark.parametrize("max_error", [0.05, 0.2])
@pytest.mark.parametrize("selection", ["by score", "by error", "in classes"])
def test_weighted_labels_keep_the_promise(max_error: float, selection: str) -> None:
    """Rows selected with known probabilities: the error of the whole traffic is within the bound, however they were selected."""
    rng = np.random.default_rng(12)
    score = rng.random(50_000)
    truth = drawn("tilted", score, np.clip(max_error * (0.4 + 1.25 * (score < 0.55)), 0, 1), rng)
    failed = 0
    for _ in range(DRAWS):
        scores, correct = truth.draw(3_000, rng)
        chance = {
            "by score": np.where(scores < 0.5, 0.1, 1.0),
            "by error": np.where(correct, 0.5, 0.1),  # the worst there is: wrong ones are labelled least
            "in classes": 0.1 + 0.9 * rng.random(3_000),
        }[selection]
        kept = rng.random(3_000) < chance
        plan = calibrate_threshold(scores[kept], correct[kept], 1 / chance[kept], max_error=max_error, max_weight=10)
        failed += plan.threshold is not None and truth.error(plan.threshold) > max_error
    assert failed <= ALLOWED


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("max_error", [0.02, 0.1])
def test_a_plan_that_keeps_its_promise_is_not_turned_off(max_error: float, weighted: bool) -> None:
    """At exactly the error allowed, watched over 3,000 audits, at most 5% of plans are ever turned back to shadow."""
    rng = np.random.default_rng(14)
    off = 0
    for _ in range(DRAWS):
        often = rng.random(3_000) < 0.5
        # Weighted: hits of one kind are audited five times as often, and wrong three times as often.
        rate = np.where(often, 3.0, 1.0) * max_error / (3 / 6 + 5 / 6) if weighted else np.full(3_000, max_error)
        weights = np.where(often, 1.0, 5.0) if weighted else None
        off += audit_verdict(rng.random(3_000) >= rate, weights, max_error=max_error).exceeded
    assert off <= ALLOWED
