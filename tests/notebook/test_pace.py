"""How often a display is updated."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nbllm.notebook.pace import BYTES_PER_S, Pace


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 400_000)), min_size=1, max_size=60), st.floats(0, 0.05))
def test_updates_stay_below_ten_a_second_half_a_megabyte_and_two_percent(steps: list[tuple[float, int]], cost_s: float) -> None:
    """Whatever comes and whatever updates cost, each pause pays for the update before it, once the cost is known."""
    pace, now_s, sent = Pace(), 0.0, []
    for gap_s, size in steps * 20:
        now_s += gap_s + 0.001
        if pace.due(now_s, news=True):
            pace.sent(now_s, cost_s, size)
            sent.append((now_s, size))
    for number, ((before_s, size), (after_s, _)) in enumerate(pairwise(sent)):
        pause_s = after_s - before_s
        assert pause_s >= 0.1 - 1e-9
        assert size / pause_s <= BYTES_PER_S * 1.001
        assert cost_s / pause_s <= 0.02 or number < 5


def test_one_hiccup_does_not_freeze_the_display() -> None:
    """The first update loads code and a busy machine stalls now and then: the next update is still due soon."""
    pace = Pace()
    pace.sent(0.0, 0.3, 100)
    assert pace.due(0.25, news=True)
    pace.sent(0.25, 0.001, 100)
    assert pace.due(0.36, news=True)


def test_silence_is_shown_once_a_second() -> None:
    """Without news only the seconds go on, and news may still go out at once."""
    pace = Pace()
    pace.sent(0.0, 0.0, 100)
    assert not pace.due(0.5, news=False)
    assert pace.due(0.5, news=True)
    assert pace.due(1.0, news=False)


def test_the_first_update_is_due_at_once() -> None:
    """A cell says at once that it asks."""
    assert Pace(updates_per_s=1000).due(-5.0, news=False)
