"""What the panel of the semantic cache says is what the library says, and what the ledger holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import Client
from nbllm.calibration import calibrate_threshold
from nbllm.core.ports import Filter
from nbllm.errors import InvalidLabels
from nbllm.panels import semantic
from nbllm.panels.examples import semantic_example
from nbllm.panels.semantic import SemanticData
from nbllm.semantic_plans import Calibration
from nbllm.settings import Settings
from tests.steady import STEADY

QUESTIONS = (
    "How do I boil an egg",
    "Please tell me how to boil an egg",
    "How tall is Mount Everest",
    "How tall is the Mount Everest",
)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client in shadow that has met its own questions again."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "5")
    with Client(home=tmp_path, settings=Settings(), ladder=["sim/large"], discover=False) as made:
        made.configure(**{"semantic_cache.mode": "shadow", **STEADY})
        for mark in ("", "?", "!"):
            for question in QUESTIONS:
                made.ask(question + mark)
        yield made


def test_each_setting_is_the_plans_own_point() -> None:
    """At every place of the slider hit rate, error seen and bound are those of plan.at, which is what Apply writes."""
    data = semantic_example()
    assert data.calibration is not None
    assert data.plan is not None
    assert len(data.thresholds) == len(data.plan.curve) > 10
    for value in data.thresholds:
        point, found = data.plan.at(value), semantic.at(data, value)
        assert point is not None
        assert (found.threshold, found.hit_rate, found.error_rate, found.error_upper, found.hits, found.errors) == (
            point.threshold, point.hit_rate, point.error_rate, point.error_upper, point.hits, point.errors,
        )  # fmt: skip
        written = data.calibration.semantic_plan(found.threshold)
        assert (written.threshold, written.error_upper) == (found.threshold, found.error_upper)
    assert data.start == data.plan.threshold


@given(st.floats(0.5, 1.0))
def test_between_two_points_the_stricter_one_counts(threshold: float) -> None:
    """No similarity without a bound of its own is shown, or applied, with the bound of another one."""
    data = semantic_example()
    assert data.plan is not None
    assert data.calibration is not None
    point, found = data.plan.at(threshold), semantic.at(data, threshold)
    if point is None:
        assert found.error_upper is None
        return
    assert found.threshold == point.threshold >= threshold
    written = data.calibration.semantic_plan(threshold)
    assert (written.threshold, written.error_upper) == (point.threshold, point.error_upper)


@given(
    st.lists(
        st.tuples(st.floats(0.5, 1), st.booleans(), st.one_of(st.just(float("nan")), st.floats(0, 1))), min_size=30, max_size=80
    )
)
def test_stricter_never_serves_or_saves_more(rows: list[tuple[float, bool, float]]) -> None:
    """For any matches: served and saved fall with the similarity, and unknown costs are counted, never summed as nothing."""
    scores, correct, saved = zip(*rows, strict=True)
    plan = calibrate_threshold(scores, correct)
    data = SemanticData(scores=np.array(scores), saved_usd=np.array(saved), calls=2 * len(rows),
                        calibration=Calibration(plan, "e", "g", (), 1, 0))  # fmt: skip
    found = [semantic.at(data, value) for value in data.thresholds]
    for loose, strict in pairwise(found):
        assert loose.served >= strict.served
        assert loose.saved_usd >= strict.saved_usd - 1e-12
    for one in found:
        here = np.array(scores) >= one.threshold
        assert one.served == here.sum()
        assert one.unknown_cost == np.isnan(np.array(saved)[here]).sum()


def test_what_shadow_met_is_priced_by_the_ledger(client: Client) -> None:
    """Saved dollars are what answering those calls cost, and all calls since the first match are the whole."""
    data = semantic.read(client)
    matches = [match for match in client.semantic.matches(100) if not match.failed]
    assert matches
    assert data.plan is None
    assert "no labels" in data.why_not
    assert data.simulated
    calls = client.ledger.calls(Filter(), limit=99)
    cost = {call.call_id: sum(a.cost_usd or 0 for a in client.ledger.attempts(call.call_id)) for call in calls}
    found = semantic.at(data, 0.5)
    assert found.served == len(matches)
    assert found.saved_usd == pytest.approx(float(sum(cost[match.call_id] for match in matches)))
    first = min(match.at for match in client.semantic.matches(100))
    assert data.calls == sum(call.started_at + (call.latency_s or 0) >= first - 0.05 for call in calls)
    assert data.waiting == len(matches)


def test_labels_are_calibrated_on_and_the_same_look_is_free(client: Client) -> None:
    """Opening the panel twice on the same labels is one look; what it shows is what client.semantic.calibrate says."""
    for match in client.semantic.to_label(100):
        client.semantic.label(match, correct=True)
    data = semantic.read(client, max_error=0.2)
    again = semantic.read(client, max_error=0.2)
    assert data.plan is not None
    assert again.plan is not None
    assert data.plan.look == again.plan.look == 1
    assert data.plan.to_json() == client.semantic.calibrate(max_error=0.2).plan.to_json()
    with pytest.raises(InvalidLabels):
        semantic.read(client, max_error=3.0)


def test_a_marked_answer_is_no_new_look(client: Client) -> None:
    """Marks calibrate nothing, so a plan is the same after one, at no further cost of confidence."""
    for match in client.semantic.to_label(100):
        client.semantic.label(match, correct=True)
    before = client.semantic.calibrate(max_error=0.6)
    client.semantic.apply(before, path=client.settings.home / "plan.json")
    client.configure(**{"semantic_cache.audit_share": 0})
    hit = client.ask("How do I boil an egg ?!")
    assert hit.source == "semantic"
    client.semantic.mark(hit)
    after = client.semantic.calibrate(max_error=0.6)
    assert (after.plan.look, after.plan.threshold) == (1, before.plan.threshold)
