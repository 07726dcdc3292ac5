"""What a route plan rests on, one line a prompt, without its text: qualities, costs, and the out-of-fold ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nbllm.calibration.ridge import Floats
from nbllm.calibration.route_intervals import PSEUDO


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Means over the rows of each prompt, U prompts, R partitions of nested cross-validation.

    rows (U,): how many; weak, strong (U,): qualities; weak_cost_usd, strong_cost_usd (U,): USD a call, None: unknown. begins, ends
    (U, R): the share of strong calls from which on the prompt is sometimes, and always, sent to the strong model, by routers that
    have not seen it: for what is gained. own_begins, own_ends (U, 1): the same by the final router when this prompt is left out:
    for what it costs, which knows no labels but depends on which prompts this very router prefers. low, high: the scale of the
    qualities. of: how many prompts these were drawn from, U unless there were many.
    """

    rows: Floats
    weak: Floats
    strong: Floats
    weak_cost_usd: Floats | None
    strong_cost_usd: Floats | None
    begins: Floats
    ends: Floats
    own_begins: Floats
    own_ends: Floats
    low: float
    high: float
    of: int

    @property
    def gain(self) -> Floats:
        """Sum over its rows of strong - weak, a prompt (U,)."""
        gain: Floats = (self.strong - self.weak) * self.rows
        return gain

    @property
    def extra_cost(self) -> Floats:
        """Sum over its rows of what strong costs more (U,), 0 where unknown."""
        if self.weak_cost_usd is None or self.strong_cost_usd is None:
            return np.zeros_like(self.rows)
        return (self.strong_cost_usd - self.weak_cost_usd) * self.rows

    @property
    def priced(self) -> bool:
        """Whether both costs are known."""
        return self.weak_cost_usd is not None and self.strong_cost_usd is not None

    def partitions(self, rng: np.random.Generator) -> list[Evidence]:
        """Return the evidence by the ranks of each partition alone, each prompt sent all or nothing, by a coin at the border."""

        def placed(begin: Floats, end: Floats) -> Floats:
            place: Floats = begin + rng.random(len(begin)) * (end - begin)
            return place[:, None]

        own = placed(self.own_begins[:, 0], self.own_ends[:, 0])
        places = [placed(begin, end) for begin, end in zip(self.begins.T, self.ends.T, strict=True)]
        return [replace(self, begins=place, ends=place, own_begins=own, own_ends=own) for place in places]


def sent_at(begins: Floats, ends: Floats, shares: Floats) -> Floats:
    """Return with which probability each prompt is sent to strong at each share (U, t), averaged over the partitions (U, R)."""
    found = np.zeros((len(begins), len(shares)))
    for begin, end in zip(begins.T, ends.T, strict=True):
        found += np.clip((shares[None, :] - begin[:, None]) / np.maximum(end - begin, 1e-12)[:, None], 0.0, 1.0)
    mean: Floats = found / begins.shape[1]
    return mean


@dataclass(frozen=True, slots=True)
class Means:
    """Means over prompts, or resamples of them (draws, ...): of weak, of the gain, of costs; `sent_*` (..., t) at each share."""

    weak: Floats
    gain: Floats
    weak_cost: Floats
    extra_cost: Floats
    sent_gain: Floats
    sent_share: Floats
    sent_cost: Floats


def columns(evidence: Evidence, shares: Floats) -> Floats:
    """Return the sums a prompt that `means_of` reads (U, 5 + 3 t), after the number of rows."""
    sent, own = sent_at(evidence.begins, evidence.ends, shares), sent_at(evidence.own_begins, evidence.own_ends, shares)
    weak_cost = np.zeros_like(evidence.rows) if evidence.weak_cost_usd is None else evidence.weak_cost_usd * evidence.rows
    plain = (evidence.rows, evidence.weak * evidence.rows, evidence.gain, weak_cost, evidence.extra_cost)
    by_share = (sent * evidence.gain[:, None], own * evidence.rows[:, None], own * evidence.extra_cost[:, None])
    return np.column_stack((*plain, *by_share))


def pseudo_columns(evidence: Evidence, shares: Floats) -> Floats:
    """Return the same of the four made-up prompts: each pairing of a worst and a best answer, at mean cost, sent by a coin."""
    weak = np.array([evidence.low, evidence.low, evidence.high, evidence.high])
    gain = np.array([evidence.low, evidence.high, evidence.low, evidence.high]) - weak
    one, total = np.ones(PSEUDO), evidence.rows.sum()
    costs = 0.0 if evidence.weak_cost_usd is None else float(evidence.weak_cost_usd @ evidence.rows / total)
    extra = float(evidence.extra_cost.sum() / total)
    plain = (one, weak, gain, one * costs, one * extra)
    by_share = [column[:, None] * shares[None, :] for column in (gain, one, one * extra)]
    return np.column_stack((*plain, *by_share))


def means_of(means: Floats, t: int) -> Means:
    """Name the columns of means (draws, 5 + 3 t) or of one mean (5 + 3 t,)."""
    _, weak, gain, weak_cost, extra_cost = (means[..., at] for at in range(5))
    sent_gain, sent_share, sent_cost = (means[..., 5 + at * t : 5 + (at + 1) * t] for at in range(3))
    return Means(weak, gain, weak_cost, extra_cost, sent_gain, sent_share, sent_cost)
