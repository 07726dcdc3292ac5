"""Sign bits, 8-bit coordinates, and the search that passes over most rows: held to comparing everything with everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.storage import vector_blocks, vector_codes
from nbllm.storage.vector_blocks import Block, nearest
from nbllm.storage.vector_codes import BITS, encode, error_of, limit, scores, signs, signs_of
from tests.storage.vector_making import clustered, near, unit


def blocks_of(vectors: np.ndarray, size: int) -> list[Block]:
    blocks = []
    for begin in range(0, len(vectors), size):
        part = vectors[begin : begin + size]
        block = Block(vectors.shape[1], begin)
        block.add(np.arange(begin + 1, begin + len(part) + 1), part.astype(np.float32), begin + len(part))
        blocks.append(block)
    return blocks


def recall(vectors: np.ndarray, cosines: np.ndarray, rng: np.random.Generator, *, dead: float = 0.0) -> tuple[int, int]:
    """Return how many of the nearest rows were found first, and how many there were with a cosine of at least 0.8."""
    blocks = blocks_of(vectors, 8192)
    gone = np.flatnonzero(rng.random(len(vectors)) < dead)
    for block in blocks:
        block.kill((gone + 1).tolist())
    alive = np.setdiff1d(np.arange(len(vectors)), gone)
    queries = near(rng, vectors[rng.choice(alive, len(cosines))], cosines)
    truth = queries @ vectors[alive].T.astype(np.float32)
    right = wanted = 0
    for query, row in zip(queries, truth, strict=True):
        if row.max() >= 0.8:
            wanted += 1
            found = nearest(blocks, query, 8, 0.8).ids - 1
            right += bool(len(found)) and row.max() - row[np.searchsorted(alive, found)].max() < 1e-6
    return right, wanted


@pytest.mark.parametrize("inside", [0.3, 0.75])
def test_the_nearest_neighbour_is_found(inside):
    """Of 300 planted neighbours at 0.8 to 0.99 in clusters, loose and tight, a fifth of all rows dead: all but one, at least."""
    rng = np.random.default_rng(3)
    right, wanted = recall(clustered(rng, 10_000, 20, inside), rng.uniform(0.8, 0.99, 300), rng, dead=0.2)
    assert wanted >= 250
    assert right >= wanted - 1


def test_neighbours_at_the_very_edge_are_found():
    """A cosine of 0.801 is as far as the limits were made for: 1 in 5,000 may be missed, 5 in 1,000 are too many."""
    rng = np.random.default_rng(4)
    right, wanted = recall(unit(rng, 5000, 384), np.full(1000, 0.801), rng)
    assert wanted > 900
    assert right > wanted - 5


def test_crowds_are_narrowed_down_by_their_best():
    """Where thousands are near, the nearest of them comes out all the same."""
    rng = np.random.default_rng(5)
    vectors = clustered(rng, 10_000, 1, 0.85)
    assert recall(vectors, rng.uniform(0.9, 0.99, 30), rng) == (30, 30)


def test_different_bits_are_as_binomial_as_the_limits_take_them_to_be():
    """Mean and spread of the number of bits that differ, at three cosines, are those of angle / pi."""
    rng = np.random.default_rng(6)
    vectors = unit(rng, 3000, 96)
    for cosine in (0.5, 0.8, 0.95):
        others = near(rng, vectors, np.full(3000, cosine))
        different = np.bitwise_count(signs(vectors) ^ signs(others)).sum(axis=0)
        share = np.arccos(cosine) / np.pi
        assert different.mean() == pytest.approx(BITS * share, rel=0.02)
        assert different.std() == pytest.approx(np.sqrt(BITS * share * (1 - share)), rel=0.05)
        assert (different > limit(cosine, BITS)).mean() <= 0.001


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 32, 384]), st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_rounding_changes_a_score_by_no_more_than_it_says(seed, dimensions, length):
    """Whatever the length and the dimension, 8 bits give the cosine to within error_of."""
    rng = np.random.default_rng(seed)
    vectors, query = unit(rng, 50, dimensions), unit(rng, 1, dimensions)[0]
    _, coordinates, scales = encode(vectors)
    assert np.abs(scores(coordinates, scales, query) - vectors @ query).max() <= error_of(float(scales.max())) + 1e-6
    assert np.array_equal(signs(vectors * np.float32(length)), signs(vectors))


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_nearer_means_fewer_different_bits(one, other):
    """The limit never grows with the cosine, and fits 8 bits."""
    low, high = sorted((one, other))
    assert 0 <= limit(high, BITS) <= limit(low, BITS) <= 255


def test_one_vector_is_coded_like_many():
    """The bits of a question are those that it would have as a row."""
    vectors = unit(np.random.default_rng(7), 200, 384)
    one_by_one = np.array([signs_of(vector) for vector in vectors]).T
    assert np.bitwise_count(one_by_one ^ signs(vectors)).sum() <= 2  # a coordinate at 0 may round to either side


def test_bits_are_counted_without_numpy_2_too(monkeypatch):
    """With numpy 1, which has neither bitwise_count nor vecdot, the same rows are found."""
    rng = np.random.default_rng(8)
    words = rng.integers(1 << 63, size=(3, 50), dtype=np.uint64)
    counted = vector_codes._ones_by_table(words)
    assert np.array_equal(counted, np.bitwise_count(words))
    out = np.empty(50, np.uint8)
    assert vector_codes._ones_by_table(words[0], out=out) is out
    vectors = unit(rng, 3000, 64)
    blocks = blocks_of(vectors, 3000)
    before = nearest(blocks, vectors[7], 3, 0.3)
    monkeypatch.setattr(vector_blocks, "ones", vector_codes._ones_by_table)
    monkeypatch.delattr(np, "vecdot")
    after = nearest(blocks, vectors[7], 3, 0.3)
    assert np.array_equal(before.ids, after.ids)


def test_blocks_grow_join_and_shed_their_dead():
    """Rows added a few at a time, killed, joined and cleaned are the rows that were meant."""
    rng = np.random.default_rng(9)
    vectors = unit(rng, 900, 48)
    first, second = Block(48, 0), Block(48, 600)
    for begin in range(0, 600, 7):
        part = vectors[begin : min(begin + 7, 600)]
        first.add(np.arange(begin, begin + len(part)) + 1, part, begin + len(part))
    second.add(np.arange(600, 900) + 1, vectors[600:], 950)
    assert first.kill([3, 3, 599, 10_000]) == 2
    assert first.kill([3]) == 0
    joined = first.joined(second)
    assert (joined.after_id, joined.last_id, joined.rows, joined.dead_rows) == (0, 950, 900, 2)
    clean = joined.without_dead()
    assert (clean.rows, clean.dead_rows, clean.last_id) == (898, 0, 950)
    for number in (0, 597, 599, 899):
        assert nearest([clean], vectors[number], 1, 0.9).ids.tolist() == [number + 1]
    for number in (2, 598):
        assert nearest([clean], vectors[number], 1, 0.99).ids.tolist() == []
