"""calibrate_route and its plan on input that makes no sense, or hardly any."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from nbllm.calibration import calibrate_route
from nbllm.errors import InvalidRequest
from tests.calibration.routing_data import Outcomes, simulated


def data(n: int = 60) -> Outcomes:
    return simulated(n, np.random.default_rng(3), d=8)


def calibrate(o: Outcomes, **changed: Any) -> Any:
    given = {"embeddings": o.embeddings, "weak_quality": o.weak, "strong_quality": o.strong}
    given |= {"prompts": o.prompts, "weak_cost_usd": o.weak_cost_usd, "strong_cost_usd": o.strong_cost_usd}
    return calibrate_route(**(given | changed))


def with_one(values: Any, row: int, value: Any) -> Any:
    return [value if at == row else one for at, one in enumerate(values)]


ROWS = data()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompts": ROWS.prompts[:59]}, r"embeddings has the shape \(60, 8\), and there are 59 prompts"),
        ({"weak_quality": ROWS.weak[:7]}, r"weak_quality has the shape \(7,\), and there are 60 prompts"),
        ({"strong_quality": with_one(ROWS.strong, 4, np.nan)}, r"strong_quality\[4\] is nan \(1 of 60"),
        ({"strong_quality": with_one(ROWS.strong, 4, None)}, r"strong_quality\[4\] is nan \(1 of 60"),
        ({"strong_quality": with_one(ROWS.strong, 4, "good")}, "strong_quality is no list of numbers"),
        ({"weak_cost_usd": with_one(ROWS.weak_cost_usd, 9, np.inf)}, r"weak_cost_usd\[9\] is inf"),
        ({"weak_cost_usd": [0.1, 0.2]}, r"weak_cost_usd has the shape \(2,\)"),
        ({"strong_cost_usd": -0.1}, r"strong_cost_usd\[0\] is -0\.1: a cost cannot be negative"),
        ({"strong_cost_usd": "much"}, "strong_cost_usd is no number and no list of numbers"),
        ({"embeddings": with_one(ROWS.embeddings, 2, [np.nan] * 8)}, r"embeddings\[2\] holds a number that is not finite"),
        ({"embeddings": with_one(ROWS.embeddings.tolist(), 2, [1.0])}, "embeddings is no array of numbers"),
        ({"embeddings": ROWS.embeddings[:, 0]}, r"embeddings has the shape \(60,\)"),
        ({"embeddings": np.zeros((60, 0))}, r"embeddings has the shape \(60, 0\)"),
        ({"prompts": with_one(ROWS.prompts, 5, 7)}, r"prompts\[5\] is int, not a string"),
        ({"prompts": "one text"}, "prompts is not a list of strings"),
        ({"quality_from": "dice"}, "quality_from='dice' is unknown"),
        ({"strong_share": 2}, "strong_share=2 is no share"),
        ({"strong_quality": ROWS.weak}, "same quality on each of the 60 rows: there is no gap"),
        ({"prompts": ["same"] * 60}, r"60 prompts \(1 different\)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(changed: dict[str, Any], words: str) -> None:
    """The message names the argument, the row and what is wrong; nothing is guessed."""
    with pytest.raises(InvalidRequest, match=words):
        calibrate(ROWS, **changed)


def test_money_may_be_decimal() -> None:
    """Costs as Decimal, one or many, are taken as they are."""
    plan = calibrate(ROWS, weak_cost_usd=Decimal("0.001"), strong_cost_usd=[Decimal("0.02")] * 60)
    assert plan.at(strong_share=0.5).cost_usd_per_call.value == pytest.approx(0.0105)


@pytest.mark.parametrize("n", [0, 1, 3, 19])
def test_a_handful_of_rows_is_too_few(n: int) -> None:
    """Three rows are refused with how many would do."""
    with pytest.raises(InvalidRequest, match=f"calibrated on {n} prompts?: too few .*\nGive at least 20"):
        calibrate(data()[:n])


def test_twenty_rows_give_a_plan_that_says_it_is_unsure() -> None:
    """The smallest set is calibrated, with wide intervals and a note that it is small."""
    plan = calibrate(data()[:20])
    assert any("20 different prompts are few" in note for note in plan.notes)
    assert plan.gap.high - plan.gap.low > 0.3


@pytest.mark.parametrize(
    ("embeddings", "note"),
    [
        (np.zeros_like, "60 of 60 embeddings are zero vectors"),
        (lambda x: np.full_like(x, 0.3), "All embeddings are equal"),
        (lambda x: np.vstack((np.zeros((5, 8)), x[5:])), "5 of 60 embeddings are zero vectors"),
        (lambda x: x[:, :1], ""),
        (lambda x: x * 1e150, ""),
        (lambda x: x * 1e-150, ""),
        (lambda x: np.hstack((x, np.repeat(x, 200, axis=1))), ""),
    ],
)
def test_odd_embeddings_are_calibrated_and_noted(embeddings: Any, note: str) -> None:
    """Zero, equal, huge, tiny, one-dimensional and very wide embeddings all give a plan that routes, and the odd ones a note."""
    o = data()
    changed = replace(o, embeddings=embeddings(o.embeddings))
    plan = changed.calibrated()
    assert note in "\n".join(plan.notes)
    for share in (0.3, 0.5):
        assert changed.recovered(plan, strong_share=share)[0] == pytest.approx(share, abs=0.2)


def test_when_nothing_tells_prompts_apart_a_coin_keeps_the_share() -> None:
    """With equal embeddings and lengths the route is random: APGR 0.5, shares are kept, and a prompt always goes the same way."""
    o = data(400)
    same = replace(o, embeddings=np.ones((400, 8)), prompts=[f"prompt {row:04d}" for row in range(400)])
    plan = same.calibrated()
    assert plan.apgr.value == pytest.approx(0.5, abs=1e-6)
    routed = plan.route(same.prompts, same.embeddings, strong_share=0.3)
    assert routed.strong.mean() == pytest.approx(0.3, abs=0.07)
    np.testing.assert_array_equal(routed.strong, plan.route(same.prompts, same.embeddings, strong_share=0.3).strong)


def test_a_strong_model_that_is_always_better_by_the_same_is_a_gap_without_a_pattern() -> None:
    """Weak always wrong and strong always right: the gap is sure and no prompt gains more than another."""
    o = data()
    plan = calibrate(o, weak_quality=np.zeros(60), strong_quality=np.ones(60))
    assert plan.gap.value == 1
    assert plan.gap.low > 0.8
    assert plan.apgr.value == pytest.approx(0.5, abs=1e-6)
    assert plan.at(strong_share=0.4).quality_recovered.value == pytest.approx(0.4, abs=1e-6)


def test_a_strong_model_that_is_worse_has_no_gap_to_recover() -> None:
    """Quality at a share is still told; what would be a share of a negative gap is refused or None, and a note says why."""
    o = data(200)
    plan = calibrate(o, weak_quality=np.maximum(o.strong, o.weak), strong_quality=o.weak * (np.arange(200) % 3 > 0))
    assert plan.gap.high < 0
    assert plan.apgr is plan.over_random is plan.length_only_apgr is plan.at(strong_share=0.3, batch=50).quality_recovered is None
    assert any("strong model is worse than the weak one" in note for note in plan.notes)
    assert plan.at(strong_share=0.3).quality.value < plan.at(strong_share=0).quality.value
    with pytest.raises(InvalidRequest, match="There is no gap to recover: strong is not better"):
        plan.at(quality_recovered=0.5)
    assert "none, because there is no positive gap" in str(plan)
    assert type(plan).from_json(plan.to_json()) == plan
    plan.plot()


def test_a_gap_that_is_not_sure_has_no_bounds() -> None:
    """Where strong may be no better than weak, shares of the gap have no bound, and that is said."""
    rng = np.random.default_rng(5)
    o = data(60)
    plan = calibrate(o, weak_quality=rng.integers(0, 2, 60), strong_quality=np.append(np.ones(3), rng.integers(0, 2, 57)))
    if plan.gap.value <= 0:
        pytest.fail("the example needs a small positive gap")
    assert plan.gap.low < 0
    assert plan.apgr.high == np.inf
    assert any("not sure that strong is better" in note for note in plan.notes)
    assert "no bound" in str(plan)
    assert type(plan).from_json(plan.to_json()) == plan


def test_equal_prompts_are_never_on_both_sides_of_a_fold() -> None:
    """Copies bring no confidence: with each prompt five times the intervals are those of the prompts, not of the rows."""
    o = simulated(80, np.random.default_rng(6), d=8)
    five = o[np.repeat(np.arange(80), 5)]
    once, often = o.calibrated(), five.calibrated()
    assert (often.rows, often.prompts) == (400, 80)
    assert any("400 rows are of 80 different prompts" in note for note in often.notes)
    assert often.apgr.value == pytest.approx(once.apgr.value, abs=0.05)
    assert often.gap.high - often.gap.low > 0.9 * (once.gap.high - once.gap.low)


def test_unknown_costs_are_unknown() -> None:
    """Without both costs nothing is said about money, and a point cannot be named by it."""
    plan = calibrate(data(), weak_cost_usd=None)
    assert plan.at(strong_share=0.5, batch=10).cost_usd_per_call is None
    assert plan.at(strong_share=0.5, batch=10).batch.cost_usd_per_call is None
    with pytest.raises(InvalidRequest, match="What a call costs is unknown"):
        plan.at(cost_usd_per_call=0.01)


def test_points_are_named_once_and_by_numbers() -> None:
    """Two names, no number, and batches that are no count of requests are refused."""
    plan = calibrate(data())
    for wish, words in (
        ({"strong_share": 0.1, "cost_usd_per_call": 1.0}, "strong_share and cost_usd_per_call are given"),
        ({"strong_share": float("nan")}, "strong_share=nan is no number"),
        ({"quality_recovered": "much"}, "quality_recovered='much' is no number"),
        ({"strong_share": 0.1, "batch": 0}, "batch=0 is no number of requests"),
        ({"strong_share": 0.1, "batch": 2.5}, r"batch=2\.5 is no number of requests"),
        ({"strong_share": 0.1, "batch": True}, "batch=True is no number of requests"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            plan.at(**wish)


def test_a_route_is_asked_with_the_embedder_that_it_knows() -> None:
    """Another dimension, a zero vector, a number that is not finite: each is refused by name, for one prompt as for many."""
    o = data()
    plan = o.calibrated(embedder="lab/e5")
    for vectors, words in (
        (o.embeddings[:1, :5], r"have 5 dimensions, the plan was calibrated with 8\.\nUse the embedder of the plan, lab/e5"),
        (np.zeros((1, 8)), r"embeddings\[0\] is a zero vector"),
        (np.full((1, 8), np.inf), r"embeddings\[0\] holds a number that is not finite"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            plan.route(o.prompts[:1], vectors)
        with pytest.raises(InvalidRequest, match=words):
            plan.route_one(o.prompts[0], vectors[0])
    with pytest.raises(InvalidRequest, match="prompts is not a list"):
        plan.route("text", o.embeddings[:1])
    assert plan.route([], np.zeros((0, 8))).strong.shape == (0,)


def test_long_and_empty_prompts_are_routed() -> None:
    """A megabyte and nothing at all are prompts too."""
    o = data()
    prompts = ["", "x" * 1_000_000, *o.prompts[2:]]
    plan = calibrate(o, prompts=prompts)
    assert plan.route(prompts, o.embeddings).strong.shape == (60,)
    plan.route_one(prompts[1], o.embeddings[1])
