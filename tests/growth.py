"""How the time of some work grows with the length of a text that was made to be slow."""

from __future__ import annotations

import time
from collections.abc import Callable


def took_s(work: Callable[[str], object], piece: str, size: int) -> float:
    """Return the processor time of the work on that many characters of the piece, the best of three."""
    text = piece * (size // len(piece))
    best_s = 1e9
    for _ in range(3):
        began_s = time.thread_time()
        work(text)
        best_s = min(best_s, time.thread_time() - began_s)
    return best_s
