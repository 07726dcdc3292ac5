"""What calibrate_route promises, proved on real outcomes and on simulated ones whose gain is known. Minutes: make test-promises.

Each test prints what it measured (ARGS=-s), and docs/calibration-routes.md shows it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nbllm.calibration import Estimate
from nbllm.calibration.ridge import Floats
from tests.calibration.routing_data import Outcomes, gsm8k, simulated

HALVES = 200
DRAWS = 200
SHARES = (0.2, 0.3, 0.5, 0.7)
LEAST = 0.95 - 2 * float(np.sqrt(0.95 * 0.05 / DRAWS))


def test_on_real_outcomes_the_route_beats_random_choice() -> None:
    """GSM8K, Mixtral-8x7B-Instruct and gpt-4-1106: the interval of APGR leaves 0.5 out; length alone stands beside it as it is."""
    plan = gsm8k().calibrated()
    print(f"\n{plan}")
    assert plan.apgr.low > 0.5
    assert plan.over_random.low > 0
    assert plan.length_only_apgr is not None


@pytest.mark.timeout(1500)
def test_the_prediction_covers_the_other_half() -> None:
    """Calibrated on one random half, predicted for the other: quality and quality recovered are inside at least 184 times of 200.

    At four shares, as the plan routes the other half by its threshold, and with exactly that share of its highest scores.
    """
    real, inside, misses = gsm8k(), Counter[str](), Counter[str]()
    for draw in range(HALVES):
        order = np.random.default_rng(draw).permutation(len(real.prompts))
        here, there = real[order[: len(order) // 2]], real[order[len(order) // 2 :]]
        plan = here.calibrated(seed=draw)
        scores = plan.route(there.prompts, there.embeddings).scores
        for share in SHARES:
            ahead = plan.at(strong_share=share, batch=len(there.prompts)).batch
            top = np.argsort(np.argsort(-scores)) < round(share * len(scores))
            for how, strong in (("route", plan.route(there.prompts, there.embeddings, strong_share=share).strong), ("top", top)):
                for name, (value, found) in outcome(there, strong, ahead).items():
                    inside[f"{name} at {share}, {how}"] += value in found
                    misses[f"{name} {'below' if value < found.low else 'above' if value > found.high else 'inside'}"] += 1
    print("\n" + "\n".join(f"{name}: {count} of {HALVES}" for name, count in sorted(inside.items())), dict(misses))
    counted = {name: count for name, count in inside.items() if name.startswith("quality")}
    assert len(counted) == 2 * 2 * len(SHARES)
    assert min(counted.values()) >= 184, counted


def outcome(there: Outcomes, strong: Floats, ahead: object) -> dict[str, tuple[float, Estimate]]:
    """Return what was predicted beside what came."""
    weak, gap = there.weak.mean(), (there.strong - there.weak).mean()
    quality = np.where(strong, there.strong, there.weak).mean()
    cost = np.where(strong, there.strong_cost_usd, there.weak_cost_usd).mean()
    return {
        "quality": (quality, ahead.quality),
        "quality recovered": ((quality - weak) / gap, ahead.quality_recovered),
        "cost": (cost, ahead.cost_usd_per_call),
        "share": (strong.mean(), ahead.strong_share),
    }


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("world", "n"),
    [
        ({"signal": 0.0, "length": 0.0}, 150),
        ({"signal": 1.0, "length": 0.3}, 150),
        ({"signal": 3.0, "length": 1.0}, 300),
        ({"signal": 3.0, "length": 0.0, "d": 400}, 150),
    ],
    ids=["nothing to learn", "little", "much", "more dimensions than rows"],
)
def test_the_intervals_hold_what_is_true(world: dict[str, float], n: int) -> None:
    """With a known gain: APGR, lead over length alone, gap, quality and quality recovered are inside 95% less two standard errors.

    And where there is nothing to learn, "surely better than random choice" is said at most once in forty, plus two standard errors.
    """
    everyone = simulated(20_000, np.random.default_rng(99), **world)
    gain, length = everyone.strong - everyone.weak, np.array([len(prompt) for prompt in everyone.prompts])
    inside, sure = Counter[str](), 0
    for draw in range(DRAWS):
        plan = simulated(n, np.random.default_rng((n, draw)), **world).calibrated(seed=draw)
        if plan.apgr is None or plan.over_length_only is None or plan.over_random is None:
            continue
        scores = plan.route(everyone.prompts, everyone.embeddings).scores
        router, by_length = area(gain, scores), area(gain, plan_direction(plan.length_only_apgr, gain, length))
        found = {
            "gap": (gain.mean(), plan.gap),
            "apgr": (router, plan.apgr),
            "over length": (router - by_length, plan.over_length_only),
        }
        for share in (0.3, 0.7):
            strong = plan.route(everyone.prompts, everyone.embeddings, strong_share=share).strong
            quality, point = np.where(strong, everyone.strong, everyone.weak).mean(), plan.at(strong_share=share)
            found[f"quality at {share}"] = quality, point.quality
            found[f"recovered at {share}"] = (quality - everyone.weak.mean()) / gain.mean(), point.quality_recovered
        for name, (value, estimate) in found.items():
            inside[name] += value in estimate
        inside["all"] += 1
        sure += plan.over_random.low > 0
    print(f"\n{world}, n = {n}: {dict(inside)}; surely better than random: {sure}")
    assert inside["all"] >= 0.95 * DRAWS
    assert min(inside.values()) >= LEAST * inside["all"], inside
    if not any((world["signal"], world["length"])):
        assert sure <= (0.025 + 2 * np.sqrt(0.025 * 0.975 / DRAWS)) * DRAWS


def area(gain: Floats, scores: Floats) -> float:
    """Return the true APGR of scores."""
    rank = (np.argsort(np.argsort(scores)) + 0.5) / len(scores)
    return float((gain * rank).mean() / gain.mean())


def plan_direction(found: Estimate | None, gain: Floats, length: Floats) -> Floats:
    """Return the length, or its negative where the calibration set said that short prompts gain more."""
    assert found is not None
    return length if found.value >= 0.5 else -length
