"""The index of a home, loaded when it is first asked for: it needs numpy, and most sessions never switch it on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nbllm.core.ports.semantic import AT_LEAST, Neighbour, VectorIndex, VectorRow, VectorStats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

VECTORS = "vectors.db"
"""The file of an index that was used."""


class LateVectors:
    """A VectorIndex that is made with its first use; every method is that of the index."""

    def __init__(self, make: Callable[[], VectorIndex]) -> None:
        self._make = make
        self._made: VectorIndex | None = None
        self._lock = threading.Lock()

    @property
    def _index(self) -> VectorIndex:
        if self._made is None:
            with self._lock:
                self._made = self._made or self._make()
        return self._made

    async def add(self, row: VectorRow) -> None:
        """See VectorIndex."""
        await self._index.add(row)

    async def nearest(self, partition: str, vector: ArrayLike, k: int = 8, *, at_least: float = AT_LEAST) -> Sequence[Neighbour]:
        """See VectorIndex."""
        return await self._index.nearest(partition, vector, k, at_least=at_least)

    async def drop(self, *keys: str) -> int:
        """See VectorIndex."""
        return await self._index.drop(*keys)

    async def drop_partition(self, partition: str) -> int:
        """See VectorIndex."""
        return await self._index.drop_partition(partition)

    async def drop_older(self, created_before: float) -> int:
        """See VectorIndex."""
        return await self._index.drop_older(created_before)

    async def clear(self) -> int:
        """See VectorIndex."""
        return await self._index.clear()

    async def keys(self, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, str]]:
        """See VectorIndex."""
        return await self._index.keys(after=after, limit=limit)

    async def count(self, partition: str | None = None) -> int:
        """See VectorIndex."""
        return await self._index.count(partition)

    def stats(self) -> VectorStats:
        """See VectorIndex."""
        return self._index.stats()

    def close(self) -> None:
        """Let go of what was made."""
        if self._made is not None:
            self._made.close()
