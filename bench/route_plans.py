"""A plan of calibrate_route: how long it takes to make, and to ask."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from bench.measure import Row, per_call_s
from nbllm.calibration import calibrate_route

ROWS, DIMENSIONS = 1_000, 384
_DECISIONS, _ROUNDS = 5_000, 3


def plans() -> list[Row]:
    """Time a plan of 1,000 labelled prompts, one decision by it, a point, and a prediction for 500 requests."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((ROWS, DIMENSIONS))
    prompts = ["word " * int(words) + str(row) for row, words in enumerate(rng.integers(5, 200, ROWS))]
    weak = (rng.random(ROWS) < 1 / (1 + np.exp(vectors[:, 0] - 0.5))).astype(float)
    strong = (rng.random(ROWS) < 0.85).astype(float)
    plan = calibrate_route(prompts, vectors, weak, strong, 0.001, 0.02)
    asked = cycle(zip(prompts, vectors.astype(np.float32), strict=True))
    one_s = per_call_s(lambda: plan.route_one(*next(asked)), _DECISIONS)
    raw_s = per_call_s(lambda: next(asked)[1] @ vectors[0], _DECISIONS)
    point_s = per_call_s(lambda: plan.at(strong_share=0.37), 200)
    ahead_s = per_call_s(lambda: plan.at(strong_share=0.37, batch=500), _ROUNDS)
    made_s = per_call_s(lambda: calibrate_route(prompts, vectors, weak, strong, 0.001, 0.02), _ROUNDS)
    what = f"routing decision of a plan, {DIMENSIONS} dimensions, without the embedding"
    beside = f"the dot product alone {raw_s * 1000:.4f} ms"
    return [
        Row(what, "0.1 ms p50", f"{one_s * 1000:.4f} ms", beside, one_s <= 1e-4),
        Row(
            f"calibrate a route on {ROWS:,} labelled prompts",
            "reported",
            f"{made_s:.2f} s",
            f"then a point {point_s * 1000:.2f} ms, a prediction for 500 requests {ahead_s * 1000:.0f} ms",
            None,
        ),
    ]
