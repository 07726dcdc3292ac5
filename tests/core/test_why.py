from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.why import NOTHING, GuardRow, Why, guards_from_text, guards_to_text

words = st.text(st.characters(codec="ascii", categories=("Ll",)), min_size=1, max_size=12)
guards = st.none() | st.lists(st.builds(GuardRow, words, st.booleans()), max_size=5).map(tuple)


@given(guards)
def test_verdicts_come_back_from_their_column(verdicts) -> None:
    """Guards by name and verdict read back as they were written; no guards at all stays apart from none asked."""
    assert guards_from_text(guards_to_text(verdicts)) == verdicts


def test_what_a_stage_found_joins_what_the_route_chose() -> None:
    """A stage that knows a match says only that; route and reason of the call stay, and what it says itself comes first."""
    chosen = Why(route="cheap", reason="route cheap")
    found = Why(matched_text="q", similarity=0.98, threshold=0.95)
    assert found.over(chosen) == Why(route="cheap", reason="route cheap", matched_text="q", similarity=0.98, threshold=0.95)
    assert Why(reason="a match").over(chosen).reason == "a match"
    assert NOTHING.over(chosen) is chosen


def test_the_ledgers_side_holds_no_text() -> None:
    """Without texts neither the matched question nor the words that a guard saw are left; everything else is."""
    why = Why(route="r", matched_text="secret", guards=(GuardRow("names", False, "Ann is not Bob"),), plan_id="p", error_upper=0.1)
    bare = why.without_texts()
    assert bare == Why(route="r", guards=(GuardRow("names", False),), plan_id="p", error_upper=0.1)
    assert Why(route="r").without_texts() == Why(route="r")
