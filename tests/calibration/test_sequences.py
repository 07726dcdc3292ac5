"""The search for a threshold: sequences as they are meant, and their false rejections counted over every outcome there is."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nbllm.calibration.binomial import lower_tail
from nbllm.calibration.sequences import fewest_hits, loosest_rejected, starts_of

LABELS, CELLS, LIMIT = 7, 3, 0.4


def slowly(p_values: list[float], cells: list[int], levels: list[float]) -> int | None:
    """The same search, candidate by candidate: who is alive, and with what level."""
    found, alive = None, 0.0
    for candidate, p in enumerate(p_values):
        alive = alive if p <= alive else 0.0
        fresh = sum(level for cell, level in zip(cells, levels, strict=True) if cell == candidate)
        if fresh:
            alive = alive + fresh if p <= alive + fresh else 0.0
        if alive:
            found = candidate
    return found


@given(st.data())
def test_the_loosest_candidate_of_any_sequence_is_found(data: st.DataObject) -> None:
    """Sequences stop at their first failure, go on together where they meet, and begin anew at each start."""
    p_values = data.draw(st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.04, 0.5]), min_size=1, max_size=12))
    cells = sorted(data.draw(st.lists(st.integers(0, len(p_values) - 1), min_size=1, max_size=5)))
    levels = data.draw(st.lists(st.sampled_from([0.005, 0.011, 0.021]), min_size=len(cells), max_size=len(cells)))
    assert loosest_rejected(np.array(p_values), np.array(cells), np.array(levels)) == slowly(p_values, cells, levels)


@given(st.integers(1, 200_000), st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.7]), st.sampled_from([0.03, 0.001, 1e-7]))
def test_starts_are_ranks_that_split_the_level(n: int, max_error: float, level: float) -> None:
    """Ranks rise up to the last label, levels add up to what may be spent, and the first start can be passed at all."""
    ranks, levels = starts_of(n, max_error, level)
    assert ranks[-1] == n
    assert np.all(np.diff(ranks) > 0)
    assert ranks[0] >= 1
    assert math.isclose(levels.sum(), level)
    if len(ranks) > 1:
        p = lower_tail(np.array([0]), np.array([ranks[0] - 1]), max_error)[0]
        assert p <= levels[0]
    assert fewest_hits(max_error, level) <= fewest_hits(max_error, level / 10)


@cache
def outcomes() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every way in which labels fall into cells as right or wrong: counts (o, CELLS, 2), logs of how many ways each is (o,)."""
    kinds = 2 * CELLS
    bars = np.array(list(itertools.combinations(range(LABELS + kinds - 1), kinds - 1)))
    padded = np.column_stack((np.full(len(bars), -1), bars, np.full(len(bars), LABELS + kinds - 1)))
    counts = np.diff(padded, axis=1) - 1
    logs = math.lgamma(LABELS + 1) - np.array([sum(math.lgamma(c + 1) for c in row) for row in counts])
    return counts.reshape(-1, CELLS, 2), logs


@cache
def chosen(ranks: tuple[int, ...], level: float) -> NDArray[np.int64]:
    """For each outcome the cell above which everything is served, -1 for none."""
    counts, _ = outcomes()
    spent = level / (1 + level)
    result = np.full(len(counts), -1)
    for i, outcome in enumerate(counts):
        size, wrong = outcome.sum(axis=1), outcome[:, 1]
        held = np.flatnonzero(size)
        hits, errors = (np.concatenate(([0], np.cumsum(column)))[held] for column in (size, wrong))
        cells = np.searchsorted(np.cumsum(size[held]), np.array(ranks), side="left")
        found = loosest_rejected(lower_tail(errors, hits, LIMIT), cells, np.full(len(ranks), spent / len(ranks)))
        result[i] = -1 if found is None else held[found]
    return result


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.001, 1), min_size=CELLS, max_size=CELLS),
    st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, LIMIT * 1.001, 1.0])), min_size=CELLS, max_size=CELLS),
    st.sampled_from([(2, 5, 7), (3, 7), (1, 2, 3, 4, 5, 6, 7), (4, 5, 7)]),
    st.sampled_from([0.2, 0.45]),
)
def test_false_rejections_are_bounded_exactly(sizes: list[float], error: list[float], ranks: tuple[int, ...], level: float) -> None:
    """Over all outcomes of seven labels, ties and errors that rise and fall included, at most the level goes wrong: no sampling."""
    counts, logs = outcomes()
    share, wrong = np.array(sizes) / sum(sizes), np.array(error)
    chance = np.maximum(np.column_stack((share * (1 - wrong), share * wrong)), 1e-300)
    probability = np.exp(logs + (counts * np.log(chance)).sum(axis=(1, 2)))
    assert math.isclose(probability.sum(), 1, rel_tol=1e-6)
    too_wrong = np.concatenate(([0.0], np.cumsum(share * (wrong - LIMIT))))[:CELLS] > 1e-12
    found = chosen(ranks, level)
    assert probability[(found >= 0) & too_wrong[found]].sum() <= level
