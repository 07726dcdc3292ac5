"""calibrate_threshold: what a plan holds, what is refused and in which words, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.calibration import ThresholdPlan, calibrate_threshold, judge_agreement
from nbllm.errors import ConfigurationError, InvalidLabels, InvalidPlan, InvalidRequest, NbllmError

_DICE = np.random.default_rng(7)
SCORES = _DICE.random(2_000)
CORRECT = _DICE.random(2_000) < 1 - 0.6 * (1 - SCORES) ** 1.5


def test_a_plan_says_what_it_promises_and_on_what() -> None:
    """Threshold, counts and bounds agree with the labels, and the reason has the numbers and for whom they hold."""
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1)
    hits = plan.threshold is not None and plan.threshold <= SCORES
    assert plan.accepted
    assert plan.error_upper is not None
    assert plan.hits == np.count_nonzero(hits)
    assert plan.errors == np.count_nonzero(hits & ~CORRECT)
    assert plan.hit_rate == pytest.approx(plan.hits / 2_000)
    assert plan.error_rate == pytest.approx(plan.errors / plan.hits, abs=1e-6)
    assert plan.error_rate < plan.error_upper <= 0.1
    assert f"{plan.threshold:g}" in plan.reason
    assert "pairs like these" in plan.reason
    assert "accept_foreign" in plan.reason
    assert (plan.n, plan.look, plan.more_labels, plan.foreign) == (2_000, 1, 0, True)


def test_the_curve_counts_the_labels_at_each_of_its_thresholds() -> None:
    """Each point's hits, errors and rates are those of the labels, the bound is above what was seen, the plan's point is on it."""
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1)
    for point in plan.curve:
        hits = point.threshold <= SCORES
        assert (point.hits, point.errors) == (np.count_nonzero(hits), np.count_nonzero(hits & ~CORRECT))
        assert point.error_rate < point.error_upper <= 1
    assert np.all(np.diff(plan.curve.threshold) < 0)
    assert np.all(np.diff(plan.curve.hit_rate) > 0)
    assert plan.threshold in plan.curve.threshold.tolist()
    loose = plan.curve[len(plan.curve) - 1]
    assert plan.at(loose.threshold) == loose
    assert plan.at(loose.threshold + 1e-9) == plan.curve[len(plan.curve) - 2], "a bound is that of the next stricter threshold"
    assert plan.at(2.0) is None


def test_the_same_labels_give_the_same_plan_in_any_order() -> None:
    """Nothing depends on the order of rows or on chance."""
    order = np.random.default_rng(8).permutation(2_000)
    assert calibrate_threshold(SCORES, CORRECT) == calibrate_threshold(SCORES[order], CORRECT[order])


def test_a_plan_survives_its_file_and_reads_line_by_line() -> None:
    """JSON and back is the same plan; the file has a line a fact and a line a point."""
    plan = calibrate_threshold(
        SCORES, CORRECT, max_error=0.1, embedder="minilm 2", date="2026-11-21", look=3, origin=["audit"] * 1_999 + ["marked"]
    )
    text = plan.to_json()
    assert ThresholdPlan.from_json(text) == plan == ThresholdPlan.from_json(text.encode())
    lines = text.splitlines()
    assert '  "date": "2026-11-21",' in lines
    assert '  "look": 3,' in lines
    assert '  "embedder": "minilm 2",' in lines
    assert sum('"error_upper"' in line and '"threshold"' in line for line in lines) == len(plan.curve)
    assert plan.plan_id == ThresholdPlan.from_json(text).plan_id != calibrate_threshold(SCORES, CORRECT, max_error=0.1).plan_id


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ('"kind": "nbllm threshold plan 1"', '"kind": "a recipe"'),
        ('"error_upper": 0.1', '"error_upper": 0.2'),
        ('"look": 1', '"look": "1"'),
        ('"confidence": 0.95', '"confidence": 95'),
        ('"origin": "imported"', '"origin": "marked"'),
        ('"n": 2000,', ""),
        ("{", "["),
    ],
)
def test_a_plan_that_was_tampered_with_is_refused(found: str, instead: str) -> None:
    """A file that lacks something, is no plan or promises more than it shows is an error that says so."""
    text = calibrate_threshold(SCORES, CORRECT, max_error=0.1).to_json()
    assert found in text
    with pytest.raises(InvalidPlan, match=r"calibrate again"):
        ThresholdPlan.from_json(text.replace(found, instead, 1))


def test_settings_switch_a_plan_on_but_never_a_refused_one() -> None:
    """to_settings names mode, plan and embedder; without a threshold it raises."""
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1, embedder="minilm")
    assert plan.to_settings("plans/a.json") == {"mode": "on", "plan": "plans/a.json", "embedder": "minilm"}
    with pytest.raises(ConfigurationError, match="nothing to switch on"):
        calibrate_threshold(SCORES[:3], CORRECT[:3]).to_settings()


def test_a_plan_shows_itself_and_escapes_what_came_from_outside() -> None:
    """HTML has the promise and the chosen row in bold; an embedder's name cannot put markup into a notebook."""
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1, embedder="<script>alert(1)</script>")
    html = plan._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert f"Threshold {plan.threshold:g}" in html
    assert "All bounds hold at once" in html
    assert "Threshold refused" in calibrate_threshold(SCORES[:9], CORRECT[:9])._repr_html_()
    assert str(plan) == plan.reason


# ------------------------------------------------------------------------------------------------ refusals


def test_three_labels_are_refused_with_how_many_it_takes() -> None:
    """Too few labels are no error: the refusal says how many hits it takes without a wrong one."""
    plan = calibrate_threshold([0.9, 0.8, 0.7], [True, True, False])
    assert not plan.accepted
    assert plan.error_upper is None
    assert plan.more_labels is not None
    assert "There are 3 labels" in plan.reason
    assert "hits" in plan.reason
    assert ThresholdPlan.from_json(plan.to_json()) == plan
    html = plan._repr_html_()
    assert "refused" in html


def test_all_correct_is_a_plan_once_there_are_enough() -> None:
    """Labels of one class are fine where they are all correct: nothing was wrong, and the bound says how much may be."""
    few, many = (calibrate_threshold(SCORES[:n], np.ones(n), max_error=0.05) for n in (60, 400))
    assert not few.accepted
    assert few.more_labels
    assert many.accepted
    assert many.error_rate == 0
    assert many.hits == 399


def test_all_wrong_is_refused_without_asking_for_more_labels() -> None:
    """Where every label is wrong no number of them helps, and the refusal says what could."""
    plan = calibrate_threshold(SCORES, np.zeros(2_000))
    assert not plan.accepted
    assert plan.more_labels is None
    assert "No number of labels helps" in plan.reason
    assert "100%" in plan.reason
    assert "guards" in plan.reason
    assert "judge" in plan.reason


def test_a_refusal_says_how_many_more_labels_would_do_and_they_do() -> None:
    """With as many more labels as the refusal names, drawn from the same, a plan is accepted in most cases."""
    rng = np.random.default_rng(3)
    refused = next(
        p for p in (calibrate_threshold(SCORES[:n], CORRECT[:n], max_error=0.05) for n in (400, 300, 200)) if not p.accepted
    )
    assert refused.more_labels is not None
    assert f"{refused.more_labels:,} more labels" in refused.reason
    accepted = 0
    for _ in range(20):
        at = rng.integers(0, refused.n, refused.n + refused.more_labels)
        accepted += calibrate_threshold(SCORES[at], CORRECT[at], max_error=0.05, look=2).accepted
    assert accepted >= 15


def test_an_error_above_the_bound_is_not_cured_by_labels() -> None:
    """Where hits are wrong more often than allowed at every threshold, the refusal gives the lowest error seen."""
    plan = calibrate_threshold(SCORES, np.random.default_rng(9).random(2_000) < 0.7)
    assert plan.more_labels is None
    assert "No number of labels helps" in plan.reason
    assert "lowest error seen" in plan.reason


def test_alternatives_are_measured_on_the_same_labels() -> None:
    """A better score is shown with what it gains, and its interval excludes no gain; NaN, where a guard blocks, is no hit."""
    rng = np.random.default_rng(10)
    truth = rng.random(1_000) < 0.5
    weak = rng.random(1_000)
    better = truth + 0.8 * rng.random(1_000)
    guarded = np.where(truth | (rng.random(1_000) < 0.1), weak, np.nan)
    plan = calibrate_threshold(weak, truth, alternatives={"judge": better, "guards": guarded})
    by_name = {other.name: other for other in plan.alternatives}
    assert by_name["judge"].low > 0.2
    assert by_name["judge"].hit_rate > 0.4
    assert by_name["guards"].lowest_error is not None
    assert by_name["guards"].lowest_error < 0.2
    assert "judge" in plan.reason
    assert "not promised" in plan.reason
    with pytest.raises(InvalidLabels, match="alternatives"):
        calibrate_threshold(weak, truth, alternatives={"judge": better[:5]})


def test_distances_are_recognised() -> None:
    """Scores that are lower where it is right are pointed out."""
    assert "distances" in calibrate_threshold(-SCORES, CORRECT, max_error=0.01).reason
    assert "distances" not in calibrate_threshold(SCORES, CORRECT, max_error=0.01).reason


def test_equal_scores_part_nothing() -> None:
    """A score that is the same everywhere gives no threshold, and the refusal says that this is why."""
    plan = calibrate_threshold(np.full(500, 0.5), np.ones(500))
    assert not plan.accepted
    assert "all alike" in plan.reason
    assert plan.more_labels is None


# ------------------------------------------------------------------------------------------------- origins


def test_only_the_most_trustworthy_origin_is_used() -> None:
    """Audit labels alone make a plan for the traffic; marked ones never count; what is left out is said."""
    origin = np.array(["audit"] * 1_000 + ["imported"] * 600 + ["marked"] * 400)
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1, origin=origin.tolist())
    assert (plan.n, plan.origin, plan.foreign) == (1_000, "audit", False)
    assert plan.left_out == (("marked", 400), ("imported", 600))
    assert "for this traffic" in plan.reason
    assert "400 marked" in plan.reason
    assert "evict and block" in plan.reason
    same = calibrate_threshold(SCORES[:1_000], CORRECT[:1_000], max_error=0.1, origin="audit")
    assert (plan.threshold, plan.curve) == (same.threshold, same.curve)
    with pytest.raises(InvalidLabels, match="All 2,000 labels are marked"):
        calibrate_threshold(SCORES, CORRECT, origin="marked")


def test_a_judges_plan_says_what_the_judge_is_worth() -> None:
    """Its agreement with hand labels is measured and shown, or its absence is."""
    judge = np.array([True] * 90 + [False] * 10)
    hand = np.array([True] * 85 + [False] * 15)
    agreement = judge_agreement(judge, hand)
    assert (agreement.n, agreement.agree, agreement.missed) == (100, 0.95, pytest.approx(1 / 3))
    assert agreement.low < 0.95 < agreement.high
    assert agreement.kappa is not None
    assert 0.7 < agreement.kappa < 0.8
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1, origin="judge", agreement=agreement)
    assert plan.foreign
    assert "95.0% of 100 hand labels" in plan.reason
    assert "33.3% of the wrong ones" in plan.reason
    assert ThresholdPlan.from_json(plan.to_json()) == plan
    assert "not known" in calibrate_threshold(SCORES, CORRECT, max_error=0.1, origin="judge").reason
    with pytest.raises(InvalidLabels):
        judge_agreement([True], [True, False])


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("scores", "correct", "more", "said"),
    [
        ([], [], {}, "empty"),
        ([0.5, float("nan")], [True, True], {}, "not finite.*row 1"),
        ([0.5, float("inf")], [True, True], {}, "not finite"),
        ([0.5, 0.6], [True], {}, "shape"),
        ([[0.5, 0.6]], [True, True], {}, r"shape \(1, 2\)"),
        ([[0.5], [0.6, 0.7]], [True, True], {}, "different lengths"),
        (["a", "b"], [True, True], {}, "no numbers"),
        ([None, 0.5], [True, True], {}, "no number"),
        ([1j, 0.5], [True, True], {}, "no numbers"),
        ([True, False], [True, True], {}, "no numbers"),
        ([0.5, 0.6], [2, 1], {}, "correct holds"),
        ([0.5, 0.6], ["yes", "no"], {}, "correct holds"),
        ([0.5, 0.6], [None, True], {}, "correct holds"),
        ([0.5, 0.6], [True, True], {"weights": [1]}, "weights have the shape"),
        ([0.5, 0.6], [True, True], {"weights": [0, 0]}, "smallest weight is 0"),
        ([0.5, 0.6], [True, True], {"weights": [0.1, 0.5]}, "1 / probability"),
        ([0.5, 0.6], [True, True], {"weights": [1, 5], "max_weight": 2}, "max_weight is 2"),
        ([0.5, 0.6], [True, True], {"max_error": 0}, "max_error is 0"),
        ([0.5, 0.6], [True, True], {"max_error": 5}, "5% is 0.05"),
        ([0.5, 0.6], [True, True], {"max_error": float("nan")}, "max_error is nan"),
        ([0.5, 0.6], [True, True], {"confidence": 1.0}, "confidence is 1.0"),
        ([0.5, 0.6], [True, True], {"confidence": 95}, "confidence is 95"),
        ([0.5, 0.6], [True, True], {"look": 0}, "look is 0"),
        ([0.5, 0.6], [True, True], {"look": 1.5}, "look is 1.5"),
        ([0.5, 0.6], [True, True], {"origin": "guessed"}, "origin 'guessed'"),
        ([0.5, 0.6], [True, True], {"origin": ["audit"]}, "origin has the shape"),
    ],
)  # fmt: skip
def test_bad_input_is_a_value_error_that_says_what_and_where(scores: object, correct: object, more: dict, said: str) -> None:
    """What nothing can be calibrated on raises InvalidLabels, an NbllmError and a ValueError, with a hint."""
    with pytest.raises(InvalidLabels, match=said) as caught:
        calibrate_threshold(scores, correct, **more)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, InvalidRequest)
    assert isinstance(caught.value, NbllmError)
    assert caught.value.hint


def test_columns_of_tables_are_taken_as_they_come() -> None:
    """Pandas columns, float32, whole numbers and 0/1 labels give the same plan as floats and booleans."""
    pandas = pytest.importorskip("pandas")
    grades = np.round(SCORES * 10)
    plan = calibrate_threshold(grades, CORRECT, max_error=0.1)
    assert plan == calibrate_threshold(pandas.Series(grades), pandas.Series(CORRECT), max_error=0.1)
    assert plan == calibrate_threshold(grades.astype(np.int32), CORRECT.astype(np.int8), max_error=0.1)
    assert plan == calibrate_threshold(grades.astype(np.float32), CORRECT.astype(np.float32).tolist(), max_error=0.1)
    assert plan == calibrate_threshold(grades.astype(object), CORRECT.astype(object), max_error=0.1)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([0.05, 0.3, 0.6]),
    st.integers(1, 5),
)
def test_any_labels_give_a_plan_or_a_refusal(rows: list[tuple[float, bool]], max_error: float, look: int) -> None:
    """Whatever the numbers are, a plan comes out that survives its file, shows itself and never bounds below what was seen."""
    scores, correct = zip(*rows, strict=True)
    plan = calibrate_threshold(scores, correct, max_error=max_error, look=look)
    assert ThresholdPlan.from_json(plan.to_json()) == plan
    assert plan._repr_html_()
    assert plan.reason
    assert all(point.error_upper >= point.error_rate - 1e-6 for point in plan.curve)
    if plan.threshold is not None:
        assert plan.hits == sum(score >= plan.threshold for score in scores)
