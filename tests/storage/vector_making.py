"""Rows and questions for tests of the vector index."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from nbllm.core.ports import Neighbour, VectorRow
from nbllm.storage.home import Home
from nbllm.storage.vectors import SqliteVectors

T = TypeVar("T")
DIMENSIONS = 32


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine on a loop of its own."""
    return asyncio.run(work)


def row(key: str, vector: Any, partition: str = "p", **changes: Any) -> VectorRow:
    """Make a row."""
    values = {"key": key, "partition": partition, "question": f"What is {key}?", "vector": vector, "created_at": 1_790_000_000.0}
    return VectorRow(**(values | {"embedder": "lexical-1"} | changes))


def unit(rng: np.random.Generator, n: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Make n unit vectors, in all directions alike."""
    vectors = rng.standard_normal((n, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(rng: np.random.Generator, n: int, clusters: int, inside: float, dimensions: int = 384) -> np.ndarray:
    """Make n unit vectors in clusters; inside: the cosine between two of one cluster, on average."""
    centres = unit(rng, clusters, dimensions)[rng.integers(clusters, size=n)]
    vectors = np.sqrt(inside) * centres + np.sqrt(1 - inside) * unit(rng, n, dimensions)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near(rng: np.random.Generator, vectors: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Make a unit vector at the given cosine of each."""
    sides = rng.standard_normal(vectors.shape)
    sides -= (sides * vectors).sum(axis=1, keepdims=True) * vectors
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    return (cosines[:, None] * vectors + np.sqrt(1 - cosines**2)[:, None] * sides).astype(np.float32)


async def add_all(index: Any, vectors: np.ndarray, partition: str = "p", prefix: str = "k") -> None:
    """Add vectors under the keys k0, k1 ..."""
    for number, vector in enumerate(vectors):
        await index.add(row(f"{prefix}{number}", vector, partition))


def keys(found: Sequence[Neighbour]) -> list[str]:
    """Return the keys, in order."""
    return [one.key for one in found]


ROWS = 700
VECTORS = unit(np.random.default_rng(11), ROWS)


def opened(home: Home, **options: Any) -> SqliteVectors:
    """An index on a home."""
    return SqliteVectors(home, **options)


def filled(home: Home, **options: Any) -> SqliteVectors:
    """An index that holds VECTORS."""
    index = opened(home, **options)
    run(add_all(index, VECTORS))
    return index


def found_all(index: SqliteVectors, *, but: frozenset[int] = frozenset()) -> None:
    """Every row is found by its own vector, those that were dropped are not."""

    async def look() -> None:
        for number in range(0, ROWS, 7):
            found = keys(await index.nearest("p", VECTORS[number], 1, at_least=0.99))
            assert found == ([] if number in but else [f"k{number}"])

    run(look())
