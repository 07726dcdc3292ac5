"""Questions that were asked before, as vectors: what the semantic cache searches. It holds vectors and keys, never answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

AT_LEAST = 0.8
"""Neighbours of at least this cosine are found whatever the size of a partition (see VectorIndex.nearest)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorRow:
    """A question whose answer is in the response cache under `key`.

    partition: names all that must be equal for two questions to be compared (model, endpoint, system prompt, parameters, embedder
    and its version ...). vector: shape (d,), any length but 0; it is brought to unit length. embedder: for people to read.
    created_at: Unix time in seconds.
    """

    key: str
    partition: str
    question: str
    vector: ArrayLike
    created_at: float
    embedder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A stored question and the cosine of the angle between the two, at most 1. row_id grows with each row, and is never reused."""

    key: str
    question: str
    score: float
    created_at: float
    row_id: int
    embedder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorStats:
    """rows and partitions in all; size_bytes: on disk; memory_bytes: of the vectors that this process has loaded."""

    rows: int
    partitions: int
    size_bytes: int
    memory_bytes: int
    directory: str


class VectorIndex(Protocol):
    """Nearest questions inside one partition. Errors: UnusableVector, and StorageError when the rows cannot be read or written.

    A row counts from the moment `add` returns, for this process at once and for others within a second; once `drop` or `clear`
    has returned, it is found by none.
    """

    async def add(self, row: VectorRow) -> None:
        """Keep a row, replacing the one of its partition with its key.

        Raises UnusableVector for zeros, numbers that are not finite, and another dimension than the partition's first row had.
        """

    async def nearest(self, partition: str, vector: ArrayLike, k: int = 8, *, at_least: float = AT_LEAST) -> Sequence[Neighbour]:
        """Return the k rows of the partition with the largest cosines >= at_least, best first, of equal ones the newest first.

        Scores are exact.

        Small partitions are compared as a whole. In large ones each neighbour is found with a probability of at least 99.9%, for a
        cosine of exactly `at_least`, and of more above it; only where thousands are that near may those be left out whose score is
        more than 0.1 below the best's. A lower at_least takes longer. Raises UnusableVector as `add` does.
        """

    async def drop(self, *keys: str) -> int:
        """Forget the rows with these keys, in all partitions, and return how many there were."""

    async def drop_partition(self, partition: str) -> int:
        """Forget a partition, its dimension too, and return how many rows it had."""

    async def drop_older(self, created_before: float) -> int:
        """Forget the rows that were made before a Unix time in seconds, and return how many there were."""

    async def clear(self) -> int:
        """Forget everything and return how many rows there were."""

    async def keys(self, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, str]]:
        """Return (row_id, key) of the rows with a larger row_id than `after`, in that order: to see which answers are gone."""

    async def count(self, partition: str | None = None) -> int:
        """Return how many rows a partition has, or all have."""

    def stats(self) -> VectorStats:
        """Return counts and sizes."""

    def close(self) -> None:
        """Let go of memory, threads and files."""
