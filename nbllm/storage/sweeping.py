"""Questions whose answers are gone."""

from __future__ import annotations

from collections.abc import Sequence

from nbllm.core.ports import ResponseStore
from nbllm.core.ports.semantic import VectorIndex

_AT_ONCE = 500


async def missing_of(store: ResponseStore, keys: Sequence[str]) -> list[str]:
    """Return which of any number of keys hold no entry. Raises StorageError."""
    gone: list[str] = []
    for start in range(0, len(keys), _AT_ONCE):
        gone += await store.missing(keys[start : start + _AT_ONCE])
    return gone


async def sweep(index: VectorIndex, store: ResponseStore) -> int:
    """Take the questions out of an index whose answers are no longer stored, and return how many there were."""
    last, gone = 0, 0
    while rows := await index.keys(after=last, limit=_AT_ONCE):
        last = rows[-1][0]
        missing = await store.missing([key for _, key in rows])
        if missing:
            gone += await index.drop(*missing)
    return gone
