"""When the next update of a display may go out: at most ten a second, and slower for long texts.

Every update resends the whole text, so two further bounds hold: the bytes sent stay under BYTES_PER_S, and the time spent on
updates stays under SHARE of the time that passes.
"""

from __future__ import annotations

BYTES_PER_S = 500_000.0
"""Half of the 1 MB/s at which a Jupyter server begins to drop output."""
SHARE = 0.015
"""A little under the 2% of stream time that the meter may cost, because reading the clock and joining the text cost too."""
WAITING_S = 1.0
"""While nothing comes, the seconds that pass are shown once a second."""
_USUAL_S = 0.001
"""What an update of a short text costs; the first one, which loads code, costs many times that."""


class Pace:
    """Says when an update is due, and learns from each what updates cost. Times are seconds on one monotonic clock.

    What an update costs grows with the text, by little each time: one that costs more than three times what the last one did
    was held up by something else, and counts as three times, lest a single hiccup freezes the display for seconds.
    """

    def __init__(self, *, updates_per_s: float = 10.0) -> None:
        self._shortest_s = 1.0 / min(10.0, max(0.1, updates_per_s))
        self._cost_s = _USUAL_S
        self._next_s = float("-inf")
        self._next_waiting_s = float("-inf")

    def due(self, now_s: float, *, news: bool) -> bool:
        """Whether an update may go out now. news: something came since the last one; without it only the seconds go on."""
        return now_s >= (self._next_s if news else self._next_waiting_s)

    def sent(self, began_s: float, cost_s: float, size_bytes: int) -> None:
        """Take note of an update: when it began, how long this thread worked on it, and how much was sent."""
        self._cost_s = min(cost_s, 3 * max(self._cost_s, _USUAL_S))
        pause_s = max(self._shortest_s, self._cost_s / SHARE, size_bytes / BYTES_PER_S)
        self._next_s = began_s + pause_s
        self._next_waiting_s = began_s + max(WAITING_S, pause_s)
