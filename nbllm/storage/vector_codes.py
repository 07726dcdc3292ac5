"""Vectors made small: 384 sign bits to pass over most of them, 8 bits a coordinate to compare the rest.

Sign bits (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002): the sides of random planes on which
a vector lies. Two vectors at an angle of t radians differ in a bit with probability t / pi, whatever the data look like. So the
number of different bits is binomial, and a limit on it that a neighbour passes with a probability of our choice needs no training
and no clusters. Planes here are orthogonal, which only narrows that distribution (Ji et al., "Super-bit locality-sensitive
hashing", NIPS 2012).
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
FIRST_WORDS = 2
"""These are compared for all rows; the others only for the few that pass, where they are few."""
MISS_SIGMA = 3.72
"""A neighbour has this many standard deviations before it is passed over: one in 10,000 of a normal distribution is (one-sided)."""
_SEED = 20_261_121
_AT_ONCE = 1024
"""Rows made float32 at a time: they stay in the caches of a processor."""

Floats = NDArray[np.float32]
Codes = tuple[NDArray[np.uint64], NDArray[np.int8], Floats]
"""Of n vectors: sign bits (WORDS, n), coordinates (n, d), what each row of these is to be multiplied with (n,)."""


@cache
def planes(dimensions: int) -> Floats:
    """Return the normals of the planes as columns, shape (d, BITS): orthogonal in groups of d, the same in every process."""
    rng = np.random.Generator(np.random.PCG64(_SEED))
    groups = [np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0] for _ in range(-(-BITS // dimensions))]
    return np.ascontiguousarray(np.concatenate(groups, axis=1)[:, :BITS], dtype=np.float32)


def dots(rows: Floats, query: Floats) -> Floats:
    """Return the dot products of rows with a vector, on one thread: of two, one waits for the other where a processor is busy."""
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


def signs(vectors: Floats) -> NDArray[np.uint64]:
    """Return the sign bits, shape (WORDS, n), of vectors of shape (n, d)."""
    packed = np.packbits(vectors @ planes(vectors.shape[1]) > 0, axis=1)
    return np.ascontiguousarray(packed.view(np.uint64).T)


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
