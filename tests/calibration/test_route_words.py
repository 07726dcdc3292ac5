"""A route plan in words, as HTML, as a figure and as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nbllm.calibration import Estimate, RoutePlan
from nbllm.calibration.route_words import difference
from nbllm.errors import InvalidRequest
from tests.calibration.routing_data import simulated


@cache
def plan() -> RoutePlan:
    o = simulated(200, np.random.default_rng(1), signal=3, length=0.0, gap=0.3)
    return o.calibrated(quality_from="judge", weak="sim/small", strong="<b>large</b>", embedder="lab/e5", date="2026-11-21")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Estimate(0.1, 0.02, 0.18), "surely better than length alone, by 0.1 (0.02 to 0.18)"),
        (Estimate(-0.1, -0.2, -0.01), "surely worse than length alone, by -0.1 (-0.2 to -0.01)"),
        (Estimate(0.1, -0.02, 0.18), "not surely different from length alone: 0.1 (-0.02 to 0.18) holds 0"),
        (Estimate(0.1, -np.inf, np.inf), "not surely different from length alone: 0.1 (no bound to no bound) holds 0"),
    ],
)
def test_a_difference_that_is_not_sure_is_said_in_words(found: Estimate, words: str) -> None:
    """Sure means that the 95% interval leaves 0 out; anything else is said to be unsure."""
    assert difference(found, "length alone") == words


def test_the_plan_says_what_it_rests_on() -> None:
    """Rows, where the quality came from, gap, APGR beside random and length alone, the chosen point, and for whom it holds."""
    text = str(plan())
    for part in (
        "calibrated on 200 rows; quality from a judge model, whose own errors are not in the intervals",
        "APGR (average performance gap recovered)",
        "random choice 0.5",
        "Length alone",
        "With 50.0% strong calls",
        "they hold for requests like these",
        "seed 0, 2026-11-21, embedder lab/e5",
    ):
        assert part in text
    assert "The next 50 requests like these, with 95% each" in str(replace_batch())


def replace_batch() -> str:
    from nbllm.calibration.route_words import point_sentence

    return point_sentence(plan().at(strong_share=0.5, batch=50))


def test_the_html_holds_no_foreign_markup() -> None:
    """A name with tags in it is shown as text; the table has its heads and the chosen row."""
    html = plan()._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;large&lt;/b&gt;" in html
    assert "0.5 (chosen)" in html
    assert html.count("<tr>") == 7


def test_the_figure_is_its_own() -> None:
    """A Figure comes back, drawn without pyplot, with the band, the interval, length alone and random choice named in words."""
    figure = plan().plot()
    assert isinstance(figure, Figure)
    assert "matplotlib.pyplot" not in sys.modules
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sum("95%" in label for label in labels) == 2
    assert any(label.startswith("length alone") for label in labels)
    assert any(label.startswith("random choice") for label in labels)
    again = plan().plot(figure)
    assert again is figure
    assert len(figure.axes) == 1


def test_the_json_is_read_in_a_diff_and_holds_no_prompt() -> None:
    """Facts stand one a line at the top, lines are short, and no text of a prompt is in it."""
    lines = plan().to_json().splitlines()
    assert '  "quality_from": "judge",' in lines
    assert '  "rows": 200,' in lines
    assert max(map(len, lines)) <= 140
    assert "word" not in plan().to_json()


def broken(change: Any) -> str:
    facts = json.loads(plan().to_json())
    change(facts)
    return json.dumps(facts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "This is no route plan"),
        ("[1]", "its kind is not 'nbllm route plan'"),
        ('{"kind": "nbllm threshold plan"}', "its kind is not"),
        (lambda: broken(lambda f: f.update(version=9)), "has version 9, this nbllm reads 1"),
        (lambda: plan().to_json()[:5000], "This is no route plan"),
        (lambda: broken(lambda f: f.pop("curve")), "is damaged: KeyError"),
        (lambda: broken(lambda f: f["curve"]["recovered"].pop()), "is damaged: .*a column has 100 numbers, not 101"),
        (lambda: broken(lambda f: f["score"].update(embedding=[None])), "is damaged: .*not finite"),
        (lambda: broken(lambda f: f["score"].update(embedding=["x"])), "is damaged"),
        (lambda: broken(lambda f: f.update(gap=None)), "is damaged: .*a summary is missing"),
        (lambda: broken(lambda f: f.update(quality_from="dice")), "is damaged: .*quality_from"),
        (lambda: broken(lambda f: f["evidence"].update(begins=[[1]])), "is damaged: .*a column has 1 numbers"),
    ],
)
def test_a_damaged_plan_is_refused(text: Any, words: str) -> None:
    """Cut, emptied, of another kind or version, with a column or weights that are not whole: each is said, none is half read."""
    with pytest.raises(InvalidRequest, match=words):
        RoutePlan.from_json(text if isinstance(text, str) else text())


def test_a_plan_without_bounds_can_be_written_and_read() -> None:
    """Infinite bounds and unknown costs survive JSON, which knows neither."""
    curve = replace(plan().curve, band_low=np.full(101, -np.inf), cost_usd=np.full(101, np.nan))
    found = RoutePlan.from_json(replace(plan(), curve=curve).to_json())
    assert np.isneginf(found.curve.band_low).all()
    assert np.isnan(found.curve.cost_usd).all()
