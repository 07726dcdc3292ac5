"""What helpers are asked, and how their words are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.asking_helpers import classify_messages, criterion, label_in, shortened, verdict_in

LABELS = ("urgent", "not urgent", "other")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("urgent", "urgent"),
        (' "Urgent". ', "urgent"),
        ("**other**", "other"),
        ("The label is: not urgent", "not urgent"),
        ("It is urgent, I think.", "urgent"),
        ("urgent or other", None),
        ("no idea", None),
        ("", None),
        ("others", None),
        ("insurgent", None),
    ],
)
def test_a_label_is_read_out_of_an_answer(answer: str, label: str | None) -> None:
    """One label, however it is dressed; none or several are no answer."""
    assert label_in(answer, LABELS) == label


@given(st.text(max_size=60))
def test_whatever_a_classifier_says_only_a_label_comes_of_it(answer: str) -> None:
    """No words of a model reach anything but a choice among the labels."""
    assert label_in(answer, LABELS) in (None, *LABELS)
    assert verdict_in(answer) in (None, True, False)


@pytest.mark.parametrize(
    ("answer", "said"), [("YES", True), (" no.", False), ("**Yes**, because", True), ("Nothing", None), ("", None)]
)
def test_a_verdict_is_its_first_word(answer: str, said: bool | None) -> None:
    """Yes and no as a word of their own; anything else is no verdict."""
    assert verdict_in(answer) is said


def test_a_long_request_is_shown_in_part() -> None:
    """What a helper is shown has a bound, and its beginning and its end are in it; verdicts belong to who was asked what."""
    text = "begin " + "x" * 10_000 + " end"
    short = shortened(text, 1000)
    assert len(short) < 1100
    assert short.startswith("begin")
    assert short.endswith("end")
    assert "begin" in str(classify_messages(text, LABELS, "Say.", 500))
    assert len({criterion("a", ""), criterion("b", ""), criterion("a", "x")}) == 3
