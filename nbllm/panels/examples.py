"""Made-up data for panels that have none of their own. They say so wherever they are shown."""

from __future__ import annotations

import functools

import numpy as np

from nbllm.panels.semantic import SemanticData


@functools.cache
def semantic_example() -> SemanticData:
    """Return 600 made-up matches, labelled: the more similar, the more often right."""
    from nbllm.calibration import calibrate_threshold
    from nbllm.semantic_plans import Calibration

    rng = np.random.default_rng(7)
    scores = np.round(np.clip(rng.normal(0.9, 0.06, 600), 0.6, 1.0), 4)
    correct = rng.random(600) < 1 / (1 + np.exp(-(scores - 0.8) * 45))
    plan = calibrate_threshold(scores, correct, max_error=0.05, embedder="made up")
    return SemanticData(
        scores=scores.astype(np.float64),
        saved_usd=np.round(rng.lognormal(-6.6, 0.5, 600), 6),
        stopped=74,
        calls=2_400,
        calibration=Calibration(plan, "made up", "", (), 2_400, 0),
        simulated=True,
        example=True,
    )
