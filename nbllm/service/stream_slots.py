"""Streams at once of a key: how many are open now."""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class StreamSlots(Protocol):
    """What counts streams. For one event loop."""

    async def take(self, key_id: str, limit: int) -> str | None:
        """Take one of a key's streams; None when it has as many already. Raises StorageError where nobody knows."""

    def give_back(self, key_id: str, slot: str) -> None:
        """The stream is over. Nothing is waited for."""


class MemorySlots:
    """Counted in this process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many streams are open."""
        return self._open.total()

    async def take(self, key_id: str, limit: int) -> str | None:
        """See StreamSlots."""
        if self._open[key_id] >= limit:
            return None
        self._open[key_id] += 1
        return ""

    def give_back(self, key_id: str, slot: str) -> None:
        """See StreamSlots."""
        del slot
        self._open[key_id] -= 1
        if not self._open[key_id]:
            del self._open[key_id]
