"""The ports in memory: for tests, and for a home that cannot be used. Nothing outlives the process or is shared with another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from nbllm.core.ports import Balance, CacheStats, Lease, Recording, Scope, Stored, Written
from nbllm.core.recorded import with_ends
from nbllm.storage.budget_rows import refuse_if_full
from nbllm.storage.entries import decode, encode

S = TypeVar("S")
T = TypeVar("T")


class MemoryState(Generic[S]):
    """SharedState in this process: a dict and a lock that is held for as long as `change` takes."""

    def __init__(self) -> None:
        self._states: dict[str, S] = {}
        self._lock = threading.Lock()

    async def apply(self, key: str, change: Callable[[S | None], tuple[S, T]]) -> T:
        """Replace the state by what `change` returns for it and return its result."""
        with self._lock:
            self._states[key], result = change(self._states.get(key))
        return result

    async def read(self, key: str) -> S | None:
        """Return the state, or None."""
        return self._states.get(key)


class MemoryResponseStore:
    """ResponseStore in a dict, the least recently used last to stay. Entries pass through bytes, so nobody shares mutable parts."""

    def __init__(self, *, size_limit_bytes: int = 1 << 26) -> None:
        self._size_limit_bytes = size_limit_bytes
        self._entries: dict[str, tuple[bytes, Stored]] = {}
        self._size_bytes = 0
        self._lock = threading.Lock()

    @property
    def waits(self) -> bool:
        """False: get_now answers."""
        return False

    def get_now(self, key: str) -> Stored | None:
        """Return the entry or None."""
        with self._lock:
            found = self._entries.pop(key, None)
            if found is None:
                return None
            self._entries[key] = found
        return decode(key, found[0])

    async def get(self, key: str) -> Stored | None:
        """Return the entry or None."""
        return self.get_now(key)

    async def missing(self, keys: Sequence[str]) -> Sequence[str]:
        """Return which of these keys hold no entry."""
        return [key for key in keys if key not in self._entries]

    async def put(self, entry: Stored) -> None:
        """Keep an entry, replacing one with its key."""
        value = encode(entry)
        with self._lock:
            self._drop(entry.key)
            self._entries[entry.key] = (value, entry)
            self._size_bytes += len(value)
            while self._size_bytes > self._size_limit_bytes and len(self._entries) > 1:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        value, _ = self._entries.pop(key, (b"", None))
        self._size_bytes -= len(value)

    def entries(self) -> Iterator[Stored]:
        """Yield all entries, newest first."""
        with self._lock:
            found = [(key, value) for key, (value, _) in self._entries.items()]
        yield from sorted((decode(key, value) for key, value in found), key=lambda entry: -entry.created_at)

    def purge(
        self,
        *,
        key_prefix: str | None = None,
        keys: Collection[str] | None = None,
        model: str | None = None,
        tag: str | None = None,
        older_than_s: float | None = None,
    ) -> int:
        """Delete the entries that match all that is given and return how many there were."""
        now = time.time()
        with self._lock:
            matching = [
                key
                for key, (_, entry) in self._entries.items()
                if (key_prefix is None or key.startswith(key_prefix))
                and (keys is None or key in keys)
                and (model is None or entry.model == model)
                and (tag is None or tag in entry.tags)
                and (older_than_s is None or entry.created_at < now - older_than_s)
            ]
            for key in matching:
                self._drop(key)
        return len(matching)

    def stats(self) -> CacheStats:
        """Return counts and sizes."""
        return CacheStats(
            entries=len(self._entries),
            size_bytes=self._size_bytes,
            size_limit_bytes=self._size_limit_bytes,
            damaged=0,
            directory="",
        )

    def close(self) -> None:
        """Do nothing."""


class MemoryFlights:
    """Flights in a dict. now: Unix time in seconds."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._leases: dict[str, Lease] = {}
        self._fence = 0
        self._lock = threading.Lock()

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        """Take the lease, or return None while another caller holds it."""
        with self._lock:
            held, now = self._leases.get(key), self._now()
            if held is not None and held.expires_at > now:
                return None
            self._fence += 1
            self._leases[key] = Lease(key, self._fence, now + lease_s)
            return self._leases[key]

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        """Prolong it; None when it was lost."""
        with self._lock:
            if not self._is(lease):
                return None
            self._leases[lease.key] = replace(lease, expires_at=self._now() + lease_s)
            return self._leases[lease.key]

    async def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this one and has not expired."""
        with self._lock:
            return self._is(lease) and self._leases[lease.key].expires_at > self._now()

    async def release(self, lease: Lease) -> None:
        """Give it back. A lost lease is no error."""
        with self._lock:
            if self._is(lease):
                del self._leases[lease.key]

    def _is(self, lease: Lease) -> bool:
        held = self._leases.get(lease.key)
        return held is not None and held.fence == lease.fence

    def close(self) -> None:
        """Do nothing."""


class MemoryBudgets:
    """BudgetStore in a dict."""

    def __init__(self) -> None:
        self._balances: dict[str, Balance] = {}
        self._reserved: dict[str, tuple[tuple[str, ...], Decimal]] = {}
        self._settled: set[str] = set()
        self._lock = threading.Lock()

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        """Reserve in all scopes or in none. An id that was reserved or settled before changes nothing."""
        names = tuple(dict.fromkeys(scope.name for scope in scopes))
        with self._lock:
            if reservation_id not in self._reserved and reservation_id not in self._settled:
                for scope in scopes:
                    refuse_if_full(scope, self._of(scope.name), amount_usd)
                self._reserved[reservation_id] = (names, amount_usd)
                self._add(names, reserved_usd=amount_usd)
            return {name: self._of(name) for name in names}

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        """Book the cost, once per id, and drop the reservation."""
        names = tuple(dict.fromkeys(scope.name for scope in scopes))
        with self._lock:
            if reservation_id not in self._settled:
                self._settled.add(reservation_id)
                held, amount_usd = self._reserved.pop(reservation_id, ((), Decimal(0)))
                self._add(held, reserved_usd=-amount_usd)
                self._add(names, spent_usd=cost_usd)
            return {name: self._of(name) for name in names}

    async def balance(self, names: Sequence[str]) -> Mapping[str, Balance]:
        """Return the balances; a scope never seen is zero."""
        with self._lock:
            return {name: self._of(name) for name in names}

    def _of(self, name: str) -> Balance:
        return self._balances.get(name, Balance(Decimal(0), Decimal(0)))

    def _add(self, names: Iterable[str], *, spent_usd: Decimal = Decimal(0), reserved_usd: Decimal = Decimal(0)) -> None:
        for name in names:
            before = self._of(name)
            self._balances[name] = Balance(before.spent_usd + spent_usd, before.reserved_usd + reserved_usd)

    def close(self) -> None:
        """Do nothing."""


class MemoryRecordings:
    """Recordings in a dict, the newest `limit` of them."""

    def __init__(self, *, limit: int = 1000) -> None:
        self._limit = limit
        self._kept: dict[str, Recording] = {}
        self._ends: dict[str, Mapping[str, Any]] = {}

    def keep(self, recording: Recording) -> Written:
        """Keep one."""
        self._kept[recording.call_id] = recording
        while len(self._kept) > self._limit:
            del self._kept[next(iter(self._kept))]
        return None

    def end_run(self, run: str, status: str, calls: int) -> Written:
        """Note how a run of a flow ended."""
        self._ends[run] = {"status": status, "calls": calls}
        while len(self._ends) > self._limit:
            del self._ends[next(iter(self._ends))]
        return None

    def get(self, call_id: str) -> Recording | None:
        """Return one or None."""
        found = self._kept.get(call_id)
        return None if found is None else with_ends(found, self._ends)

    def newest(self, limit: int) -> Sequence[Recording]:
        """Return the newest, newest first."""
        newest = sorted(self._kept.values(), key=lambda recording: -recording.started_at)[:limit]
        return [with_ends(recording, self._ends) for recording in newest]

    def forget(self, *, call_id: str | None = None) -> int:
        """Delete one or all, and return how many there were."""
        matching = [key for key in self._kept if call_id is None or key == call_id]
        for key in matching:
            del self._kept[key]
        if call_id is None:
            self._ends.clear()
        return len(matching)

    def close(self) -> None:
        """Do nothing."""
