"""The vector index in memory: for tests, and for a home that cannot be used. Nothing outlives the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike

from nbllm.core.embedding import unit_vector
from nbllm.core.ports import AT_LEAST, Neighbour, VectorRow, VectorStats
from nbllm.storage.vector_codes import Floats, dots


class _Kept(Struct, frozen=True):
    row_id: int
    row: VectorRow
    vector: Floats


class MemoryVectors:
    """VectorIndex in a dict, every row compared each time. limit_rows: the rows that came first go first when there are more."""

    def __init__(self, *, limit_rows: int = 20_000) -> None:
        self._limit_rows = limit_rows
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._last_id = 0
        self._lock = threading.Lock()

    async def add(self, row: VectorRow) -> None:
        """Keep a row; see VectorIndex."""
        with self._lock:
            vector = unit_vector(row.vector, dimensions=self._dimensions(row.partition))
            self._last_id += 1
            name = (row.partition, row.key)
            self._kept.pop(name, None)
            self._kept[name] = _Kept(self._last_id, row, vector)
            while len(self._kept) > self._limit_rows:
                del self._kept[next(iter(self._kept))]

    def _dimensions(self, partition: str) -> int | None:
        return next((len(one.vector) for one in self._kept.values() if one.row.partition == partition), None)

    async def nearest(self, partition: str, vector: ArrayLike, k: int = 8, *, at_least: float = AT_LEAST) -> Sequence[Neighbour]:
        """Return the nearest rows, best first; see VectorIndex."""
        with self._lock:
            query = unit_vector(vector, dimensions=self._dimensions(partition))
            rows = [one for one in self._kept.values() if one.row.partition == partition]
        near = np.minimum(dots(np.array([one.vector for one in rows]), query), 1.0) if rows else np.empty(0, np.float32)
        order = sorted(range(len(rows)), key=lambda place: (-near[place], -rows[place].row_id))
        return [_neighbour(rows[place], float(near[place])) for place in order[: max(k, 0)] if near[place] >= at_least]

    async def drop(self, *keys: str) -> int:
        """Forget the rows with these keys; see VectorIndex."""
        wanted = set(keys)
        return self._forget(lambda one: one.row.key in wanted)

    async def drop_partition(self, partition: str) -> int:
        """Forget a partition; see VectorIndex."""
        return self._forget(lambda one: one.row.partition == partition)

    async def drop_older(self, created_before: float) -> int:
        """Forget old rows; see VectorIndex."""
        return self._forget(lambda one: one.row.created_at < created_before)

    async def clear(self) -> int:
        """Forget everything; see VectorIndex."""
        return self._forget(lambda _: True)

    def _forget(self, matches: Callable[[_Kept], bool]) -> int:
        with self._lock:
            names = [name for name, one in self._kept.items() if matches(one)]
            for name in names:
                del self._kept[name]
        return len(names)

    async def keys(self, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, str]]:
        """Return numbers and keys; see VectorIndex."""
        with self._lock:
            found = [(one.row_id, one.row.key) for one in self._kept.values() if one.row_id > after]
        return found[:limit]

    async def count(self, partition: str | None = None) -> int:
        """Return how many rows there are."""
        with self._lock:
            return sum(partition is None or one.row.partition == partition for one in self._kept.values())

    def stats(self) -> VectorStats:
        """Return counts and sizes."""
        with self._lock:
            size = sum(one.vector.nbytes for one in self._kept.values())
            partitions = len({one.row.partition for one in self._kept.values()})
            return VectorStats(rows=len(self._kept), partitions=partitions, size_bytes=0, memory_bytes=size, directory="")

    def close(self) -> None:
        """Do nothing."""


def _neighbour(one: _Kept, score: float) -> Neighbour:
    row = one.row
    return Neighbour(
        key=row.key, question=row.question, score=score, created_at=row.created_at, row_id=one.row_id, embedder=row.embedder
    )
