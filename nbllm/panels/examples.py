"""Made-up data for panels that have none of their own. They say so wherever they are shown."""

from __future__ import annotations

import functools

import numpy as np

from nbllm.core.statistics import quantiles
from nbllm.core.survival import survival
from nbllm.panels.latency import LatencyData
from nbllm.panels.routing import RoutingData
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


@functools.cache
def latency_example(deadline_s: float, ttft_s: float) -> LatencyData:
    """Return 400 made-up streamed calls, the slowest of them cut at 20 s."""
    rng = np.random.default_rng(7)
    first = rng.lognormal(-0.4, 0.6, 400)
    whole = first + rng.lognormal(1.2, 0.7, 400)
    cut = whole > 20
    p95 = quantiles(whole[~cut], 0.95)[0], quantiles(first, 0.95)[0]
    return LatencyData(
        whole=survival(np.minimum(whole, 20.0), cut),
        first=survival(first, np.zeros(400, dtype=bool)),
        whole_p95_s=p95[0],
        first_p95_s=p95[1],
        failed=3,
        hits=120,
        deadline_s=deadline_s,
        ttft_s=ttft_s,
        simulated=True,
        example=True,
    )


@functools.cache
def routing_example() -> RoutingData:
    """Return a made-up plan of 300 prompts, for half of which the strong model is better, and made-up times."""
    from nbllm.calibration import calibrate_route

    rng = np.random.default_rng(7)
    embeddings = rng.normal(size=(300, 8))
    hard = embeddings[:, 0] + 0.5 * rng.normal(size=300) > 0
    weak = (rng.random(300) < np.where(hard, 0.35, 0.85)).astype(float)
    strong = (rng.random(300) < np.where(hard, 0.85, 0.9)).astype(float)
    prompts = [f"made-up prompt {number}" for number in range(300)]
    plan = calibrate_route(prompts, embeddings, weak, strong, 0.0004, 0.006, strong_share=0.4, weak="made-up weak model",
                           strong="made-up strong model", embedder="made up")  # fmt: skip
    return RoutingData(
        plan=plan,
        weak_s=rng.lognormal(-0.2, 0.4, 200),
        strong_s=rng.lognormal(1.0, 0.5, 200),
        weak=plan.weak,
        strong=plan.strong,
        start=plan.chosen_share,
        example=True,
    )
