"""What a route plan says and does."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from nbllm.calibration import RoutePlan
from nbllm.errors import InvalidRequest
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
from nbllm.calibration import RoutePlan
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
