"""Whatever two texts are: the guards answer, alike in both directions, in bounded time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core.guards import ALL, LONGEST, GuardWords, check, shipped

WORDS = st.sampled_from(
    [
        "how",
        "do",
        "I",
        "not",
        "enable",
        "7",
        "17",
        "days",
        "two",
        "the",
        "from",
        "to",
        "euros",
        "dollars",
        "May",
        "3",
        "March",
        "Wo",
        "ist",
        "nicht",
        "und",
        "$5",
        "-5",
        "1/2",
        "10:30",
        "pm",
        "3.10",
        "isn't",
        "'x'",
        '"q"',
        "C++",
        "--force",
        "NASA",
        "половина",
        "١٢",
        "½",
        "á",
        "\u202e",
        "\u200b",
        "\x00",
        "II",
        "Uhr",
        "mil",
        "y",
        "1.000,5",
        "1,000",
        "unsafe",
        "einundzwanzig",
        "no",
        "nunca",
        "or",
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map(" ".join))


@given(TEXTS, TEXTS)
@settings(max_examples=300, deadline=None)
def test_never_raises_and_is_symmetric(a: str, b: str) -> None:
    """Any two texts get one verdict per guard, and who is the query makes no difference to what passes."""
    there, back = check(a, b), check(b, a)
    assert [v.guard for v in there] == [v.guard for v in back]
    assert {v.guard for v in there} == ALL
    assert [v.passed for v in there] == [v.passed for v in back], (there, back)
    assert all(v.passed or v.detail for v in there)


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_a_text_passes_against_itself(text: str) -> None:
    """A text is its own paraphrase, also with other white space and with a mark at its end that says nothing."""
    for other in (text, f"  {text} ", f"{text} "):
        assert all(v.passed for v in check(text, other))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "7 " * 500_000,
        "\u0301" * 1_000_000,
        "'" * 7_999,
        "1." * 3_999,
        "one hundred and " * 490,
        "und" * 2_600,
        "-" * 7_999,
        "a_" * 3_999,
        "from x to y " * 660,
        "\u202ea\u0301\x00" * 1_900,
        "A" * 7_999,
        "9" * 7_999,
    ],
    ids=lambda text: f"{text[:6]!r}x{len(text)}",
)
def test_hostile_texts_take_milliseconds(text: str) -> None:
    """Long and hostile texts are compared in far less than a request takes; those over the limit pass only when they are equal."""
    check("warm", "up")
    started = time.process_time()
    verdicts = check(text, text[:-1] + "z")
    assert time.process_time() - started < 0.5
    if len(text) > LONGEST:
        assert not any(v.passed for v in verdicts)
    assert all(v.passed for v in check(text, text))


def test_one_guard_can_be_asked_alone() -> None:
    """`on` names the guards that look, in a fixed order; a name that does not exist is an error that lists those that do."""
    (verdict,) = check("Refund within 7 days?", "Refund within 17 days?", on=frozenset({"numbers"}))
    assert (verdict.guard, verdict.passed, verdict.detail) == ("numbers", False, "7 days here, 17 days there")
    with pytest.raises(ValueError, match=r"no such guard: colours; there are dates, .*wording"):
        check("a", "b", on=frozenset({"colours"}))


def test_words_can_be_added() -> None:
    """Opposites, names, common words and synonyms of one's own count, and the lists that ship stay as they are."""
    mine: GuardWords = shipped().with_(
        opposites=[("frob", "defrob")], names=["apple"], common=["zorbl"], synonyms=[("creamy", "chunky")]
    )

    def fails(a: str, b: str, words: GuardWords) -> set[str]:
        return {v.guard for v in check(a, b, words=words) if not v.passed}

    assert "opposites" in fails("How do I frob it?", "How do I defrob it?", mine)
    assert "names" in fails("How to sell apple shares?", "How to sell shares?", mine)
    assert "names" not in fails("How to sell apple shares?", "How to sell shares?", shipped())
    assert "names" in fails("How to eat a zorbl?", "How to eat?", shipped())
    assert "names" not in fails("How to eat a zorbl?", "How to eat?", mine)
    assert "wording" in fails("What is a creamy discharge?", "What is a chunky discharge?", shipped())
    assert "wording" not in fails("What is a creamy discharge?", "What is a chunky discharge?", mine)
