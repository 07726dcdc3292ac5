"""Stored answers, and one run for many who ask the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from msgspec import Struct


class Stored(Struct, frozen=True, kw_only=True):
    """A complete answer in the cache. `answer` is JSON-able: text, reasoning, message, usage, finish_reason, logprobs, vectors.

    created_at and expires_at are Unix times in seconds; expires_at None: never. An expired entry is still handed out: the
    stage decides, because a stale entry may serve the ladder. cost_usd and latency_s are what the answer took to make.
    """

    key: str
    model: str
    created_at: float
    expires_at: float | None
    answer: Mapping[str, Any]
    cost_usd: Decimal | None
    latency_s: float | None
    ttft_s: float | None = None
    tags: tuple[str, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """entries and bytes now; damaged: entries set aside because their checksum did not hold."""

    entries: int
    size_bytes: int
    size_limit_bytes: int
    damaged: int
    directory: str


class ResponseStore(Protocol):
    """Complete answers by key, on this machine or shared. Never raises for damage: a damaged entry is a miss, set aside."""

    def get_now(self, key: str) -> Stored | None:
        """Return the entry without waiting; None for a miss, and for a store that would have to wait (`waits` is True)."""

    @property
    def waits(self) -> bool:
        """Whether get_now cannot answer and `get` must be awaited."""

    async def get(self, key: str) -> Stored | None:
        """Return the entry or None."""

    async def missing(self, keys: Sequence[str]) -> Sequence[str]:
        """Return which of these keys hold no entry; asking is no use of one. Raises StorageError when that cannot be told now."""

    async def put(self, entry: Stored) -> None:
        """Keep an entry, replacing one with its key. Raises StorageError when it cannot; the answer is delivered all the same."""

    def entries(self) -> Iterator[Stored]:
        """Yield all readable entries, newest first."""

    def purge(
        self,
        *,
        key_prefix: str | None = None,
        keys: Collection[str] | None = None,
        model: str | None = None,
        tag: str | None = None,
        older_than_s: float | None = None,
    ) -> int:
        """Delete the entries that match all that is given (nothing given: all) and return how many there were."""

    def stats(self) -> CacheStats:
        """Return counts and sizes."""

    def close(self) -> None:
        """Flush access times and let go of the files."""


class Lease(Struct, frozen=True, gc=False):
    """The right to run one key for all processes. `fence` grows with each holder: a late one is recognised."""

    key: str
    fence: int
    expires_at: float


class Flights(Protocol):
    """Who runs a key, across processes."""

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        """Take the lease, or return None while another live process holds it."""

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        """Prolong it; None when it was lost."""

    async def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this one (asked before storing: a late leader stores nothing)."""

    async def release(self, lease: Lease) -> None:
        """Give it back. A lost lease is no error."""
