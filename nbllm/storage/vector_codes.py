"""Vectors made small: 384 sign bits to pass over most of them, 8 bits a coordinate to compare the rest.

Sign bits (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002): the sides of random planes on which
a vector lies. Two vectors at an angle of t radians differ in a bit with probability t / pi, whatever the data look like. So the
number of different bits is binomial, and a limit on it that a neighbour passes with a probability of our choice needs no training
and no clusters.
"""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 384
"""Fewer let more rows through that then have to be compared; more take longer themselves. Six words a row."""
WORDS = BITS // 64
MISS_SIGMA = 3.72
"""A neighbour has this many standard deviations before it is passed over: one in 10,000 of a normal distribution
is (one-sided), and there are two occasions (STEPS)."""
_SEED = 20_261_121
_ONE_THREAD = 200_000
"""Multiplications in one product; OpenBLAS takes one thread for up to 262,144."""
_AT_ONCE = 1024
"""Rows made float32 at a time: they stay in the caches of a processor."""

Floats = NDArray[np.float32]
Codes = tuple[NDArray[np.uint64], NDArray[np.int8], Floats]
"""Of n vectors: sign bits (WORDS, n), coordinates (n, d), what each row of these is to be multiplied with (n,)."""


@cache
def planes(dimensions: int) -> Floats:
    """Return the normals of the planes as columns, shape (d, BITS), the same in every process.

    Orthogonal ones would narrow the distribution by an eighth (Ji et al., "Super-bit locality-sensitive hashing", NIPS 2012), and
    take a second to be made where processors are busy.
    """
    rng = np.random.Generator(np.random.PCG64(_SEED))
    return rng.standard_normal((dimensions, BITS), dtype=np.float32)


def dots(rows: Floats, query: Floats) -> Floats:
    """Return the dot products of rows with a vector, equal ones of equal rows, which a matrix product does not promise.

    On one thread: of two, one waits for the other where a processor is busy.
    """
    found: Floats = np.vecdot(rows, query) if hasattr(np, "vecdot") else rows @ query
    return found


@cache
def _normals(dimensions: int) -> Floats:
    """Return the planes as rows."""
    return np.ascontiguousarray(planes(dimensions).T)


def signs_of(query: Floats) -> NDArray[np.uint64]:
    """Return the sign bits of one vector, shape (WORDS,)."""
    return np.packbits(dots(_normals(len(query)), query) > 0).view(np.uint64)


@cache
def planes_sum(dimensions: int) -> int:
    """Return a checksum: bits of other planes (of another numpy, say) cannot be compared with ours."""
    return zlib.crc32(planes(dimensions).tobytes())


@cache
def _plane_words(dimensions: int) -> Floats:
    """Return the planes in groups of 64, shape (WORDS, d, 64)."""
    return np.ascontiguousarray(planes(dimensions).reshape(dimensions, WORDS, 64).transpose(1, 0, 2))


def signs(vectors: Floats) -> NDArray[np.uint64]:
    """Return the sign bits, shape (WORDS, n), of vectors of shape (n, d).

    Many small products, not a large one: BLAS takes all processors for that, and where one of them is busy the others spin and
    wait for it. On one thread they are as quick.
    """
    n, dimensions = vectors.shape
    group = max(1, _ONE_THREAD // (64 * dimensions))
    padded = np.zeros((-(-n // group), 1, group, dimensions), np.float32)
    padded.reshape(-1, dimensions)[:n] = vectors
    sides = np.matmul(padded, _plane_words(dimensions)) > 0
    words = np.packbits(sides, axis=-1).view(np.uint64)[..., 0]
    return np.ascontiguousarray(words.transpose(1, 0, 2).reshape(WORDS, -1)[:, :n])


def encode(vectors: Floats) -> Codes:
    """Return the codes of unit vectors, shape (n, d)."""
    scales = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-30)) / np.float32(127)
    return signs(vectors), np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def scores(coordinates: NDArray[np.int8], scales: Floats, query: Floats) -> Floats:
    """Return the cosines of rows of coordinates with a unit vector, each to about `error_of`."""
    found = np.empty(len(scales), np.float32)
    for begin in range(0, len(scales), _AT_ONCE):
        rows = slice(begin, begin + _AT_ONCE)
        found[rows] = dots(coordinates[rows].astype(np.float32), query)
    found *= scales
    return found


def error_of(scale: float) -> float:
    """Return six standard deviations of a score's rounding error: d uniform errors of a step, weighted by a unit vector."""
    return 6.0 * scale / math.sqrt(12.0)


@cache
def most_different(cosine_percent: int, bits: int) -> int:
    """Return how many of so many bits may differ between vectors of that cosine, all but one time in 10,000; 255 at most."""
    share = math.acos(max(-1.0, min(1.0, cosine_percent / 100.0))) / math.pi
    return min(255, math.floor(bits * share + MISS_SIGMA * math.sqrt(bits * share * (1.0 - share))) + 1)


def limit(cosine: float, bits: int) -> int:
    """Return `most_different` of the next lower hundredth."""
    return most_different(math.floor(max(-1.0, min(1.0, cosine)) * 100.0), bits)


def _ones_by_table(words: NDArray[np.uint64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return the number of ones of each word, for numpy 1."""
    halves = _table()[np.ascontiguousarray(words).view(np.uint16)].reshape(*words.shape, 4)
    return np.add.reduce(halves, axis=-1, dtype=np.uint8, out=out)


@cache
def _table() -> NDArray[np.uint8]:
    numbers = np.arange(1 << 16, dtype=np.uint32)
    return sum(((numbers >> bit) & 1 for bit in range(16)), np.zeros_like(numbers)).astype(np.uint8)


ones: Any = getattr(np, "bitwise_count", _ones_by_table)
"""The number of ones of each word."""
