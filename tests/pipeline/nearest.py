"""A VectorIndex that compares everything with everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nbllm.core.ports.semantic import AT_LEAST, Neighbour, VectorRow, VectorStats


class NearestByHand:
    """Rows in a list. trouble: raised by every search and every insert."""

    def __init__(self) -> None:
        self.rows: list[VectorRow] = []
        self.numbers: dict[int, int] = {}
        self.last = 0
        self.trouble: Exception | None = None
        self.searches = 0

    async def add(self, row: VectorRow) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.rows = [one for one in self.rows if (one.key, one.partition) != (row.key, row.partition)]
        self.rows.append(row)
        self.last += 1
        self.numbers[id(row)] = self.last

    async def nearest(self, partition: str, vector: ArrayLike, k: int = 8, *, at_least: float = AT_LEAST) -> Sequence[Neighbour]:
        self.searches += 1
        if self.trouble is not None:
            raise self.trouble
        found = [
            Neighbour(key=row.key, question=row.question, score=score, created_at=row.created_at, row_id=number)
            for number, row in enumerate(self.rows)
            if row.partition == partition and (score := float(np.asarray(row.vector) @ np.asarray(vector))) >= at_least
        ]
        return sorted(found, key=lambda one: -one.score)[:k]

    async def drop(self, *keys: str) -> int:
        before = len(self.rows)
        self.rows = [row for row in self.rows if row.key not in keys]
        return before - len(self.rows)

    async def drop_partition(self, partition: str) -> int:
        return await self.drop(*(row.key for row in self.rows if row.partition == partition))

    async def drop_older(self, created_before: float) -> int:
        return await self.drop(*(row.key for row in self.rows if row.created_at < created_before))

    async def clear(self) -> int:
        return await self.drop(*(row.key for row in self.rows))

    async def keys(self, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, str]]:
        return [(self.numbers[id(row)], row.key) for row in self.rows if self.numbers[id(row)] > after][:limit]

    async def count(self, partition: str | None = None) -> int:
        return sum(partition in (None, row.partition) for row in self.rows)

    def stats(self) -> VectorStats:
        return VectorStats(rows=len(self.rows), partitions=0, size_bytes=0, memory_bytes=0, directory="")

    def close(self) -> None:
        pass
