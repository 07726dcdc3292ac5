"""How the time of some work grows with the length of a text that was made to be slow."""

from __future__ import annotations

import time
from collections.abc import Callable


def assert_grows_no_faster(work: Callable[[str], object], piece: str, size: int) -> None:
    """AssertionError when four times the characters of the piece take the work sixteen times as long, or nearly.

    size: of the longer text. Processor time; what a busy machine adds is left out by taking the best of up to three tries.
    """
    long, short = (piece * (length // len(piece)) for length in (size, size // 4))
    long_s = short_s = 1e9
    for _ in range(3):
        long_s = min(long_s, took_s(work, long))
        short_s = min(short_s, took_s(work, short))
        if long_s < 10 * short_s + 0.02:
            return
    raise AssertionError(f"{len(short):,} characters took {short_s:.3f} s, {len(long):,} took {long_s:.3f} s")


def took_s(work: Callable[[str], object], text: str) -> float:
    """Return the processor time of the work on a text."""
    began_s = time.thread_time()
    work(text)
    return time.thread_time() - began_s
