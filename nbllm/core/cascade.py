"""A cascade's judgement of an answer by the log probabilities of its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class Verdict(Struct, frozen=True, kw_only=True, gc=False):
    """What a cascade thinks of an answer. words: for people. score: the higher the better, None where only yes or no is known.

    sure: False where nobody could judge (a verifier that failed).
    """

    accepted: bool
    words: str
    score: float | None = None
    sure: bool = True


def mean_logprob(logprobs: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean log probability of an answer's tokens, natural logarithm, None without any or with one that is no number.

    It is the log of the geometric mean of the tokens' probabilities; a length does not count against an answer. This is the score
    to give to calibrate_threshold.
    """
    values = [token.get("logprob") for token in logprobs]
    if not values or not all(isinstance(v, int | float) and not isinstance(v, bool) and not math.isnan(v) for v in values):
        return None
    return sum(values) / len(values)  # type: ignore[arg-type]  # all of them are numbers


def by_logprob(logprobs: Sequence[Mapping[str, Any]], cut_off: float) -> Verdict:
    """Accept an answer whose mean log probability is at least the cut-off."""
    mean = mean_logprob(logprobs)
    if mean is None:
        return Verdict(accepted=False, words="it came without log probabilities")
    sign = ">=" if mean >= cut_off else "<"
    return Verdict(accepted=mean >= cut_off, words=f"mean log probability {mean:.3f} {sign} {cut_off:.3f}", score=mean)
