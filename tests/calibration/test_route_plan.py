"""What a route plan says and does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from nbllm.calibration import Estimate, RoutePlan
from nbllm.errors import InvalidRequest
from nbllm.settings.route_tables import route_from
from nbllm.settings.strategies import Learned
from tests.calibration.routing_data import Outcomes, simulated


@cache
def data() -> Outcomes:
    return simulated(400, np.random.default_rng(1))


@cache
def plan() -> RoutePlan:
    return data().calibrated(embedder="lab/e5", weak="sim/small", strong="sim/large", date="2026-11-21")


def test_the_ends_are_the_models_themselves() -> None:
    """No strong calls recover nothing and cost what weak costs; all recover everything."""
    none, everything = plan().at(strong_share=0), plan().at(strong_share=1)
    assert none.quality.value == pytest.approx(data().weak.mean(), abs=1e-6)
    assert everything.quality.value == pytest.approx(data().strong.mean(), abs=1e-6)
    assert (none.quality_recovered.value, everything.quality_recovered.value) == (0, 1)
    assert none.cost_usd_per_call.value == pytest.approx(data().weak_cost_usd.mean(), rel=1e-6)
    assert everything.cost_usd_per_call.value == pytest.approx(data().strong_cost_usd.mean(), rel=1e-6)
    routed = [plan().route(data().prompts, data().embeddings, strong_share=share).strong.mean() for share in (0, 1)]
    assert routed == [0, 1]


@pytest.mark.parametrize("wish", [{"strong_share": 0.3}, {"quality_recovered": 0.9}, {"cost_usd_per_call": 0.005}])
def test_a_point_is_named_by_share_cost_or_quality(wish: dict[str, float]) -> None:
    """Each name gives a point at which that very number is met, with intervals around all numbers."""
    point = plan().at(**wish)
    ((name, value),) = wish.items()
    met = getattr(point, name)
    assert float(met) == pytest.approx(value, abs=1e-6)
    for one in (point.quality, point.quality_recovered, point.cost_usd_per_call):
        assert one.low < one.value < one.high
        assert one.value in one


def test_a_plan_survives_json_and_another_process() -> None:
    """What one process wrote another one reads, equal in every number, and it routes the same."""
    text = plan().to_json()
    assert RoutePlan.from_json(text) == plan()
    assert RoutePlan.from_json(text).to_json() == text
    assert max(map(len, text.splitlines())) <= 140
    here = plan().route(data().prompts[:20], data().embeddings[:20])
    code = """
import sys, json
from nbllm.calibration import Estimate, RoutePlan
plan, prompts, vectors = json.load(sys.stdin)
routed = RoutePlan.from_json(plan).route(prompts, vectors)
print(json.dumps([routed.strong.tolist(), routed.scores.tolist()]))
"""
    given = json.dumps([text, data().prompts[:20], data().embeddings[:20].tolist()])
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [here.strong.tolist(), here.scores.tolist()]


def test_what_cannot_be_reached_is_refused_with_the_range() -> None:
    """A quality or cost beyond what any share gives is refused, and the message holds what can be had."""
    with pytest.raises(InvalidRequest, match=r"recovers 1\.9 of the gap.\nAttainable: 0 \(all weak\) to 1"):
        plan().at(quality_recovered=1.9)
    with pytest.raises(InvalidRequest, match=r"costs \$5 a call.\nAttainable: \$0.0006\d* to \$0.01"):
        plan().at(cost_usd_per_call=5)
    with pytest.raises(InvalidRequest, match=r"strong_share=1\.5 is no share"):
        plan().at(strong_share=1.5)


def test_one_prompt_is_routed_as_many_are() -> None:
    """The fast path of one request decides and scores as the slow one of many."""
    chosen = plan().choose(strong_share=0.3)
    many = chosen.route(data().prompts[:50], data().embeddings[:50])
    one = [chosen.route_one(prompt, vector) for prompt, vector in zip(data().prompts[:50], data().embeddings[:50], strict=True)]
    assert [strong for strong, _ in one] == many.strong.tolist()
    np.testing.assert_allclose([score for _, score in one], many.scores, rtol=1e-12)


def test_the_settings_are_those_of_a_route() -> None:
    """What Apply writes is a route that the settings accept, at the chosen share, with the models that were named."""
    made = route_from(plan().choose(strong_share=0.3).to_settings("plans/route.json"))
    assert isinstance(made, Learned)
    assert made.strong_share == 0.3
    assert made.labels == {"weak": ("sim/small",), "strong": ("sim/large",)}
    assert (made.plan, made.embedder, made.otherwise) == ("plans/route.json", "lab/e5", ("sim/small",))
    unnamed = replace(plan(), weak="", strong="", embedder="")
    assert unnamed.to_settings() == {"strategy": "learned", "plan": "nbllm-route.json", "strong_share": 0.5}


def test_the_same_seed_gives_the_same_plan() -> None:
    """Everything random follows the seed: equal plans from equal seeds, nearly equal ones from others."""
    small = data()[:100]
    first, again, other = small.calibrated(seed=5), small.calibrated(seed=5), small.calibrated(seed=6)
    assert first == again
    assert hash(first) == hash(again)
    assert first.at(strong_share=0.4, batch=30) == again.at(strong_share=0.4, batch=30)
    assert first != other
    assert first.apgr.value == pytest.approx(other.apgr.value, abs=0.1)
    assert first.sha256 == other.sha256


def test_a_prediction_is_wider_for_fewer_requests() -> None:
    """New requests vary more than what holds on average, and fewer of them more."""
    widths = []
    for batch in (10, 100, 100_000):
        found = plan().at(strong_share=0.5, batch=batch).batch
        widths.append(found.quality.high - found.quality.low)
    average = plan().at(strong_share=0.5).quality
    assert widths[0] > widths[1] > widths[2] > 0.8 * (average.high - average.low)
    assert plan().at(strong_share=0.5, batch=1).batch.strong_share == Estimate(0.5, 0.0, 1.0)


def test_the_band_for_all_shares_is_wider_than_the_interval_for_one() -> None:
    """What holds wherever the slider is put cannot be narrower than what holds for one place."""
    curve = plan().curve
    assert np.all(curve.band_low <= curve.recovered_low + 0.02)
    assert np.all(curve.band_high >= curve.recovered_high - 0.02)
    by_quality = plan().at(quality_recovered=0.8)
    by_share = plan().at(strong_share=by_quality.strong_share)
    assert by_quality.quality_recovered.low < by_share.quality_recovered.low


def test_random_choice_has_half_by_definition() -> None:
    """The lead over random choice is APGR minus one half, and a point's lead is what is recovered minus the share."""
    assert plan().over_random.value == pytest.approx(plan().apgr.value - 0.5, abs=1e-6)
    assert plan().over_random.low == pytest.approx(plan().apgr.low - 0.5, abs=1e-6)
    assert plan().over_length_only.value == pytest.approx(plan().apgr.value - plan().length_only_apgr.value, abs=1e-6)
    point = plan().at(strong_share=0.37)
    assert point.over_random.value == pytest.approx(point.quality_recovered.value - 0.37, abs=1e-6)


def test_the_area_is_that_of_trapezoids() -> None:
    """APGR is the area under the curve of quality recovered over the share of strong calls."""
    curve = plan().curve
    area = float(np.sum((curve.recovered[1:] + curve.recovered[:-1]) / 2 * np.diff(curve.strong_share)))
    assert plan().apgr.value == pytest.approx(area, abs=2e-3)


def test_wide_embeddings_are_calibrated_in_their_own_dimension() -> None:
    """With more dimensions than prompts the fit is dual, and the weights are those of the embeddings as they come."""
    o = simulated(80, np.random.default_rng(2), signal=4, gap=0.3)
    wide = replace(o, embeddings=np.hstack((o.embeddings, np.random.default_rng(0).standard_normal((80, 3000)) * 0.01)))
    found = wide.calibrated()
    assert found.dimension == 3032
    np.testing.assert_allclose(found.route(wide.prompts, wide.embeddings).scores.mean(), found.gap.value, atol=0.05)


def test_many_prompts_keep_a_sample_for_predictions() -> None:
    """Beyond 2,000 prompts a plan keeps a random sample of them; predictions are of all and as wide as with all."""
    o = simulated(2_600, np.random.default_rng(4), d=4)
    found = o.calibrated()
    assert (len(found.evidence.rows), found.evidence.of) == (2_000, 2_600)
    ahead = found.at(strong_share=0.5, batch=10_000_000).batch.quality
    on_average = found.at(strong_share=0.5).quality
    assert ahead.value == on_average.value
    assert (ahead.high - ahead.low) == pytest.approx(on_average.high - on_average.low, rel=0.15)
    assert RoutePlan.from_json(found.to_json()) == found
