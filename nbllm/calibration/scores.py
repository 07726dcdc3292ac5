"""Scores to calibrate a cut-off for: of answers, the mean log probability of their tokens, as cascades judge by it."""

from __future__ import annotations

from nbllm.core.cascade import mean_logprob

__all__ = ["mean_logprob"]
