"""Routing data for tests: simulated, with a gain that is known, and the real outcomes where they are present."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbllm.calibration import RoutePlan, calibrate_route
from nbllm.calibration.ridge import Floats

SHARED = Path(os.environ.get("NBLLM_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")


@dataclass(frozen=True)
class Outcomes:
    """Rows of prompts, embeddings, and what each model's answer was worth and cost."""

    prompts: list[str]
    embeddings: Floats
    weak: Floats
    strong: Floats
    weak_cost_usd: Floats
    strong_cost_usd: Floats

    def __getitem__(self, rows: Any) -> Outcomes:
        arrays = (self.embeddings, self.weak, self.strong, self.weak_cost_usd, self.strong_cost_usd)
        return Outcomes([self.prompts[row] for row in np.arange(len(self.prompts))[rows]], *(one[rows] for one in arrays))

    def calibrated(self, seed: int = 0, **options: Any) -> RoutePlan:
        """Calibrate on these rows."""
        args = (self.prompts, self.embeddings, self.weak, self.strong, self.weak_cost_usd, self.strong_cost_usd)
        return calibrate_route(*args, seed, **options)

    def recovered(self, plan: RoutePlan, **point: float) -> tuple[float, float, float]:
        """Return share of strong calls, mean quality and quality recovered when the plan routes these rows."""
        strong = plan.route(self.prompts, self.embeddings, **point).strong
        quality = float(np.where(strong, self.strong, self.weak).mean())
        weak, gap = float(self.weak.mean()), float((self.strong - self.weak).mean())
        return float(strong.mean()), quality, (quality - weak) / gap


def simulated(
    n: int, rng: np.random.Generator, *, signal: float = 1.0, length: float = 0.3, gap: float = 0.2, d: int = 32
) -> Outcomes:
    """Return n rows in which the chance that only strong is right grows with one direction of the embedding and with length.

    signal, length: how much (0: not at all). gap: about how much more often strong is right; negative: less often.
    """
    direction = np.random.default_rng(7).standard_normal(d)
    x = rng.standard_normal((n, d)) * np.geomspace(1, 0.3, d)
    words = rng.integers(3, 120, n)
    hard = signal * (x @ direction) / np.linalg.norm(direction * np.geomspace(1, 0.3, d))
    hard = hard + length * (np.log(words) - 3.9)
    weak = (rng.random(n) < 1 / (1 + np.exp(hard - 0.6))).astype(float)
    strong = (rng.random(n) < np.clip(1 / (1 + np.exp(0.4 * hard - 0.6)) + gap, 0.02, 0.98)).astype(float)
    prompts = [" ".join(["word"] * int(many)) + f" {row} {rng.integers(1 << 40)}" for row, many in enumerate(words)]
    return Outcomes(prompts, x, weak, strong, 0.0001 * words / 10, 0.002 * words / 10)


@cache
def gsm8k() -> Outcomes:
    """Return the real outcomes: GSM8K problems, Mixtral-8x7B-Instruct and gpt-4-1106, at prices of their time by characters."""
    path = SHARED / "routing_gsm8k.csv"
    if not path.exists():
        pytest.skip("the routing outcomes are not on this machine (NBLLM_SHARED_DATA)")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    prompts = [row["prompt"] for row in rows]
    characters = {name: np.array([float(row[f"{name}_characters"]) for row in rows]) for name in ("weak", "strong")}
    sent = np.array([len(prompt) for prompt in prompts])
    return Outcomes(
        prompts,
        np.load(SHARED / "routing_gsm8k_minilm.npz")["prompt"].astype(np.float64),
        *(np.array([row[f"{name}_correct"] == "True" for row in rows], dtype=np.float64) for name in ("weak", "strong")),
        (sent + characters["weak"]) / 4 * 0.6e-6,
        sent / 4 * 10e-6 + characters["strong"] / 4 * 30e-6,
    )
