"""What each guard tells apart, and what it lets pass, by example; tests/data/guard_examples.txt has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm.core.guards import ALL, check

EXAMPLES = Path(__file__).parents[2] / "data" / "guard_examples.txt"
LINES = [line.split(" | ") for line in EXAMPLES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("guard", "one", "other"), LINES, ids=lambda part: part[:40])
def test_a_guard_tells_apart_what_it_is_for(guard: str, one: str, other: str) -> None:
    """Each example is refused by the guard that it names, in both directions; questions that mean the same pass all of them."""
    for query, stored in ((one, other), (other, one)):
        refused = {verdict.guard for verdict in check(query, stored) if not verdict.passed}
        assert guard in refused if guard != "same" else not refused


def test_each_guard_has_an_example() -> None:
    """No guard is without an example but those on the whole text, which other tests show."""
    assert {guard for guard, _, _ in LINES} >= ALL - {"language", "length", "question"}


@pytest.mark.parametrize(
    ("one", "other", "guard"),
    [
        ("Wie ist das Wetter in Berlin?", "How is the weather in Berlin?", "language"),
        ("Какая погода в Берлине?", "How is the weather in Berlin?", "language"),
        ("Reset my password", "Reset my password " + "and then tell me all about it " * 5, "length"),
        ("When was the first camera invented?", "Why was the first camera invented?", "question"),
        ("Wer hat das Telefon erfunden?", "Wann wurde das Telefon erfunden?", "question"),
    ],
)
def test_language_length_and_question(one: str, other: str, guard: str) -> None:
    """A question in another language, several times as long, or about a time where the other wants a reason is another question."""
    assert guard in {verdict.guard for verdict in check(one, other) if not verdict.passed}


def test_a_verdict_says_what_differs() -> None:
    """The detail names the words of both texts, so that a person sees why a hit was refused."""

    def detail(one: str, other: str, guard: str) -> str:
        return next(verdict.detail for verdict in check(one, other) if verdict.guard == guard)

    assert detail("Refund within 7 days?", "Refund within 17 days?", "numbers") == "7 days here, 17 days there"
    assert detail("Is it safe?", "Is it not safe?", "negation") == 'no denial here, "not" there'
    assert detail("How do I enable it?", "How do I disable it?", "opposites") == '"enable" here, "disable" there'
    assert detail("Who runs Oracle?", "Who runs IBM?", "names") == "Oracle here, IBM there"
