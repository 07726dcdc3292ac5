"""Labels from embeddings: what is fitted, what is promised of it, and that it survives as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.calibration import LabelPlan, fit_labels
from nbllm.calibration.logistic import fit, shares
from nbllm.errors import InvalidRequest

METHODS = ("logistic", "nearest")


def clouds(n: int = 200, labels: int = 3, *, spread: float = 0.3, seed: int = 0, d: int = 8) -> tuple[Any, list[str]]:
    """Points around one centre for each label."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(labels, d))
    codes = draw.integers(0, labels, n)
    return centres[codes] + draw.normal(scale=spread, size=(n, d)), [f"label {code}" for code in codes]


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_are_there_are_found(method: Any) -> None:
    """Well separated clouds are told apart, on points that were not fitted on too, and the measured accuracy says so."""
    x, labels = clouds(400)
    plan = fit_labels(x[:200], labels[:200], method=method)
    found, share = plan.label(x[200:])
    right = np.mean([a == b for a, b in zip(found, labels[200:], strict=True)])
    assert right > 0.95
    assert abs(plan.accuracy - right) < 0.05
    assert all(1 / 3 <= one <= 1.0000001 for one in share)
    assert plan.labels == ("label 0", "label 1", "label 2")


@pytest.mark.parametrize("method", METHODS)
def test_labels_that_mean_nothing_promise_nothing(method: Any) -> None:
    """Labels drawn by chance: the accuracy that is told is chance, not that of points learnt by heart."""
    x, _ = clouds(300, d=30)
    labels = [str(code) for code in np.random.default_rng(1).integers(0, 2, 300)]
    plan = fit_labels(x, labels, method=method)
    assert abs(plan.accuracy - 0.5) < 0.12
    assert 0.5 <= plan.commonest < 0.6


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_survives_as_json(method: Any) -> None:
    """Read back it gives the same labels; the same data and seed give the same text; no request is in it."""
    x, labels = clouds()
    plan = fit_labels(x, labels, method=method, embedder="lab/e", date="2026-11-21")
    text = plan.to_json()
    again = LabelPlan.from_json(text)
    assert again.label(x)[0] == plan.label(x)[0]
    assert again.label(x)[1] == pytest.approx(plan.label(x)[1], abs=1e-5)
    assert again.to_json() == text == fit_labels(x, labels, method=method, embedder="lab/e", date="2026-11-21").to_json()
    assert json.loads(text)["embedder"] == "lab/e"
    assert len(text.splitlines()) > len(plan.labels)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 4), st.integers(1, 6), st.floats(1e-3, 1), st.integers(0, 99))
def test_the_minimum_is_one(labels: int, d: int, penalty: float, seed: int) -> None:
    """Logistic regression ends where the slope is nothing: no small step from there lowers the loss."""
    draw = np.random.default_rng(seed)
    x, codes = draw.normal(size=(60, d)), draw.integers(0, labels, 60)

    def loss(weights: Any) -> float:
        found = shares(weights, x)[np.arange(60), codes]
        return float(-np.log(found).mean() + penalty / 2 * (weights[:, :-1] ** 2).sum())

    best = fit(x, codes, labels, penalty)
    assert all(loss(best + draw.normal(scale=1e-2, size=best.shape)) >= loss(best) - 1e-7 for _ in range(20))


@pytest.mark.parametrize(
    ("embeddings", "labels", "words"),
    [
        (np.zeros((3, 2)), ["a", "b"], "3 embeddings and 2 labels"),
        (np.ones((20, 2)), ["a"] * 20, "At least two labels"),
        (np.ones((20, 2)), ["a"] * 17 + ["b"] * 3, "'b' (3)"),
        (np.full((20, 2), np.nan), ["a", "b"] * 10, "not finite"),
        (np.ones(20), ["a", "b"] * 10, "shape"),
        ([["x"]] * 20, ["a", "b"] * 10, "no array of numbers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(embeddings: Any, labels: list[str], words: str) -> None:
    """Bad labels and embeddings are refused by name, with what to do."""
    with pytest.raises(InvalidRequest) as caught:
        fit_labels(embeddings, labels)
    assert words in str(caught.value)


def test_other_vectors_are_refused() -> None:
    """A plan wants embeddings of its own dimensions."""
    x, labels = clouds()
    with pytest.raises(InvalidRequest, match="5 dimensions, the plan was fitted with 8"):
        fit_labels(x, labels, embedder="lab/e").label(np.ones((2, 5)))


@pytest.mark.parametrize("change", ["kind", "weights", "labels", "method"])
def test_a_spoilt_plan_is_none(change: str) -> None:
    """Another kind, missing weights, labels that do not fit: no plan, never a wrong one."""
    facts = json.loads(fit_labels(*clouds()).to_json())
    facts[change] = {"kind": "x", "weights": [[1.0]], "labels": ["one"], "method": "guess"}[change]
    with pytest.raises(InvalidRequest, match="no label plan"):
        LabelPlan.from_json(json.dumps(facts))
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(InvalidRequest):
            LabelPlan.from_json(text)
