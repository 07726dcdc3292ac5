"""How long it takes to calibrate: a threshold from 100,000 labels, once each way."""

from __future__ import annotations

import numpy as np

from bench.measure import Row, per_call_s
from nbllm.calibration import calibrate_threshold

LABELS = 100_000
_ROUNDS = 5


def calibrate() -> list[Row]:
    """Time accepted, refused and weighted plans of the same labels, of which some thousands of hits are wrong."""
    rng = np.random.default_rng(7)
    scores = rng.random(LABELS)
    correct = rng.random(LABELS) < 1 - 0.6 * (1 - scores) ** 1.5
    weights = rng.uniform(1, 50, LABELS)
    plans = {
        "accepted": lambda: calibrate_threshold(scores, correct, max_error=0.1),
        "refused": lambda: calibrate_threshold(scores, rng.random(LABELS) < 0.7),
        "weighted": lambda: calibrate_threshold(scores, correct, weights, max_error=0.1),
    }
    if [plan().accepted for plan in plans.values()] != [True, False, True]:
        raise RuntimeError("The plans that are timed are not those that are meant.")
    took_s = {name: per_call_s(plan, _ROUNDS) for name, plan in plans.items()}
    raw_s = per_call_s(lambda: np.cumsum(correct[np.argsort(-scores)]), _ROUNDS)
    slowest = max(took_s, key=lambda name: took_s[name])
    each = "; ".join(f"{name} {seconds:.2f} s" for name, seconds in took_s.items())
    what, measured = f"calibrate a threshold on {LABELS:,} labels", f"{took_s[slowest]:.2f} s ({slowest})"
    return [Row(what, "2 s", measured, f"{each}; sorting and counting alone {raw_s:.3f} s", took_s[slowest] <= 2.0)]
