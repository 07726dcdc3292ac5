"""A comparison told from its other side is the same question, and nothing else in it is excused by that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.guards import check

THINGS = ("gold", "silver", "butter", "cotton", "chess", "tea", "bamboo", "marble")
COMPARISONS = (
    ("cheaper", "more expensive"),
    ("slower", "faster"),
    ("softer", "harder"),
    ("safer", "riskier"),
    ("less risky", "more risky"),
    ("less dangerous", "less safe"),
)
CONDITIONS = (
    ("before surgery", "after surgery"),
    ("when prices rise", "when prices fall"),
    ("with the lid open", "with the lid closed"),
    ("for adults", "for children"),
    ("in hot water", "in cold water"),
)

things = st.lists(st.sampled_from(THINGS), min_size=2, max_size=2, unique=True)
comparisons = st.sampled_from([*COMPARISONS, *((two, one) for one, two in COMPARISONS)])
conditions = st.sampled_from([*CONDITIONS, *((two, one) for one, two in CONDITIONS)])


def refused(one: str, other: str) -> set[str]:
    return {verdict.guard for verdict in check(one, other) if not verdict.passed}


@given(things, comparisons, conditions)
def test_the_other_side_is_the_same_under_the_same_condition_only(
    pair: list[str], words: tuple[str, str], when: tuple[str, str]
) -> None:
    """As in "A is cheaper than B", "B is more expensive than A": they pass, with one condition too, and not where it is turned."""
    (a, b), (one, two), (now, then) = pair, words, when
    assert not refused(f"Is {a} {one} than {b}?", f"Is {b} {two} than {a}?")
    assert not refused(f"Is {a} {one} than {b} {now}?", f"Is {b} {two} than {a} {now}?")
    assert "opposites" in refused(f"Is {a} {one} than {b} {now}?", f"Is {b} {two} than {a} {then}?")


@given(things, comparisons)
def test_only_one_of_both_turns_the_meaning(pair: list[str], words: tuple[str, str]) -> None:
    """The opposite without changed places is another question, and so are changed places without the opposite."""
    (a, b), (one, two) = pair, words
    assert refused(f"Is {a} {one} than {b}?", f"Is {a} {two} than {b}?")
    assert refused(f"Is {a} {one} than {b}?", f"Is {b} {one} than {a}?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Is gold less risky than silver? Convert my euros to dollars.",
            "Is silver more risky than gold? Convert my dollars to euros.",
        ),
        ("Is the bus cheaper than the tram from Rome to Oslo?", "Is the tram more expensive than the bus from Oslo to Rome?"),
        ("Is tea with milk cheaper than coffee with sugar?", "Is coffee with milk more expensive than tea with sugar?"),
    ],
)
def test_other_things_that_changed_places_are_seen(one: str, other: str) -> None:
    """Only what is compared may change places: a way, an exchange or what is in it may not."""
    assert "roles" in refused(one, other)


def test_two_reversals_are_none() -> None:
    """Places, "less" and the adjective turned at once say the contrary of what two of them do."""
    assert not refused("Is a van less dangerous than a bike?", "Is a bike less safe than a van?")
    assert "opposites" in refused("Is a van less dangerous than a bike?", "Is a bike more safe than a van?")
    assert "opposites" in refused("Is a van less dangerous than a bike?", "Is a bike safer than a van?")


def test_a_word_that_stands_twice_is_not_excused() -> None:
    """Where the same opposites say how two things compare and when, it is seen that the second is turned too."""
    assert not refused("Should I take zinc before iron at night?", "Should I take iron after zinc at night?")
    assert "opposites" in refused("Should I take zinc before iron before surgery?", "Should I take iron after zinc after surgery?")
    assert "opposites" in refused(
        "Is gold less risky than silver with less cash?", "Is silver more risky than gold with more cash?"
    )
