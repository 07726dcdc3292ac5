"""Small states on Redis, such as breakers and token buckets, changed by compare-and-set.

Each value carries a version that nobody else ever writes. Changes that come at the same time go out together, applied one after
the other to the copy that this process holds; where another replica was faster, its state comes back and they are applied to that.
A copy younger than FRESH_S answers reads, and changes that change nothing, without asking: so a breaker that opened elsewhere is
seen within that time. Redis gone: this process goes on with its own copies.

Times within states are on each process's monotonic clock. On Redis they are on Redis's own: moved by a whole number of seconds,
which is at most half a second off and leaves the states' slots of a second whole.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import random
from typing import Any, Generic, TypeVar
from uuid import uuid4

import msgspec
from msgspec.structs import replace as replace_struct

from nbllm.core.breaker import BreakerState
from nbllm.core.throttle import Bucket, BucketState
from nbllm.errors import StorageError
from nbllm.storage.redis_link import Link, Script

S = TypeVar("S")
T = TypeVar("T")
FRESH_S = 0.25
KEPT_S = 86400
OFFSET_EVERY_S = 60.0
_ROUNDS = 200
_CHANGE = Script(
    """
local found = {}
for i, key in ipairs(KEYS) do
  local expected, new = ARGV[2 * i], ARGV[2 * i + 1]
  local now = redis.call('GET', key) or ''
  local version = string.sub(now, 1, 32)
  if version ~= expected and (new == '' or version ~= string.sub(new, 1, 32)) then
    found[i] = now
  else
    if new ~= '' then redis.call('SET', key, new, 'EX', ARGV[1]) end
    found[i] = false
  end
end
return found
"""
)
"""ARGV: seconds to keep; then for each key: the version of the copy, the new value or ''. False: done; else what stands there."""


@dataclass(frozen=True, slots=True)
class Codec(Generic[S]):
    """How a state becomes bytes; moved: the same state with its times later by whole seconds. decode raises ValueError."""

    encode: Callable[[S], bytes]
    decode: Callable[[bytes], S]
    moved: Callable[[S, int], S]


class _Copy(Generic[S]):
    """What this process knows of a key: the version on Redis that it comes from, '' for none there, and the state."""

    __slots__ = ("at_s", "state", "version")

    def __init__(self) -> None:
        self.version = ""
        self.state: S | None = None
        self.at_s = float("-inf")


class RedisState(Generic[S]):
    """SharedState on Redis. name: what the keys are grouped under. now_s: the clock of the states' times."""

    def __init__(
        self, link: Link, name: str, codec: Codec[S], *, fresh_s: float = FRESH_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._link = link
        self._name = name
        self._codec = codec
        self._fresh_s = fresh_s
        self._now_s = now_s
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._copies: dict[str, _Copy[S]] = {}
        self._waiting: dict[str, list[_Change[S]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._offset: int | None = None
        self._offset_at_s = float("-inf")

    async def apply(self, key: str, change: Callable[[S | None], tuple[S, T]]) -> T:
        """Replace the state by what `change` returns for it and return its result. `change` may run more than once."""
        copy = self._copy(key)
        if self._is_fresh(copy) and key not in self._waiting:
            state, result = change(copy.state)
            if state == copy.state:
                return result
        changed: T = await self._enqueue(key, change)
        return changed

    async def read(self, key: str) -> S | None:
        """Return the state as it was at most fresh_s ago, or None."""
        copy = self._copy(key)
        if not self._is_fresh(copy):
            await self._enqueue(key, None)
        return self._copy(key).state

    def _copy(self, key: str) -> _Copy[S]:
        if self._pid != os.getpid():
            self._begin()
        return self._copies.setdefault(key, _Copy())

    def _is_fresh(self, copy: _Copy[S]) -> bool:
        return time.monotonic() - copy.at_s < self._fresh_s

    async def _enqueue(self, key: str, change: Callable[[S | None], tuple[S, Any]] | None) -> Any:
        loop = asyncio.get_running_loop()
        waiting = _Change(change, loop.create_future())
        self._waiting.setdefault(key, []).append(waiting)
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._task = loop.create_task(self._rounds())
        return await waiting.done

    async def _rounds(self) -> None:
        while self._waiting:
            # Other changes of these keys that come meanwhile wait for the next round.
            taken, self._waiting = self._waiting, {}
            try:
                await self._settle(taken)
            except BaseException as exc:
                _end(taken, exc)
                raise

    async def _settle(self, taken: dict[str, list[_Change[S]]]) -> None:
        """Apply the changes of each key, in order, and write what came of them."""
        for number in range(_ROUNDS):
            if number > 3:  # several replicas go for the same key: let them not all come at once
                await asyncio.sleep(random() * min(number, 20) * 0.0005)
            results = {key: _applied(changes, self._copies[key].state) for key, changes in taken.items()}
            try:
                taken = await self._write(taken, results)
            except StorageError:
                break
            if not taken:
                return
        for key, changes in taken.items():  # Redis is gone, or others are faster all the time: on this process's own copy
            copy = self._copies[key]
            applied = _applied(changes, copy.state)
            copy.state, copy.at_s = applied.state, time.monotonic()
            _finish(changes, applied)

    async def _write(self, taken: dict[str, list[_Change[S]]], results: dict[str, _Applied[S]]) -> dict[str, list[_Change[S]]]:
        """Write what came of the changes; return those whose state another replica had changed, which is in the copy then."""
        offset = await self._clock_offset()
        args: list[Any] = [KEPT_S]
        versions: dict[str, str] = {}
        for key in taken:
            copy, applied = self._copies[key], results[key]
            value = b""
            if applied.state is not None and applied.state != copy.state:
                versions[key] = uuid4().hex
                value = versions[key].encode() + self._codec.encode(self._codec.moved(applied.state, offset))
            args += [copy.version, value]
        found = await self._link.script(_CHANGE, [self._link.key(f"{self._name}:{key}") for key in taken], args)
        again: dict[str, list[_Change[S]]] = {}
        for (key, changes), now in zip(taken.items(), found, strict=True):
            copy = self._copies[key]
            copy.at_s = time.monotonic()
            if now is None:
                copy.version, copy.state = versions.get(key, copy.version), results[key].state
                _finish(changes, results[key])
            else:
                copy.version, copy.state = now[:32].decode("ascii", "replace"), self._decoded(now, offset)
                again[key] = changes
        return again

    def _decoded(self, value: bytes, offset: int) -> S | None:
        try:
            return self._codec.moved(self._codec.decode(value[32:]), -offset) if value else None
        except ValueError:
            return None  # damaged: as if nothing were known

    async def _clock_offset(self) -> int:
        """Return how many whole seconds Redis's clock is ahead of this process's."""
        if self._offset is None or time.monotonic() - self._offset_at_s > OFFSET_EVERY_S:
            seconds, micros = await self._link.call("TIME")
            exact = int(seconds) + int(micros) / 1e6 - self._now_s()
            if self._offset is None or abs(exact - self._offset) > 1:
                self._offset = round(exact)
            self._offset_at_s = time.monotonic()
        return self._offset


@dataclass(slots=True)
class _Change(Generic[S]):
    """One caller's change, None to read only, and where its result goes."""

    change: Callable[[S | None], tuple[S, Any]] | None
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Applied(Generic[S]):
    state: S | None
    results: list[Any]


def _applied(changes: list[_Change[S]], state: S | None) -> _Applied[S]:
    results: list[Any] = []
    for one in changes:
        result: Any = None
        if one.change is not None and not one.done.cancelled():
            try:
                state, result = one.change(state)
            except Exception as exc:  # the caller's own, and only his
                result = _Raised(exc)
        results.append(result)
    return _Applied(state, results)


@dataclass(slots=True)
class _Raised:
    error: Exception


def _finish(changes: list[_Change[S]], applied: _Applied[S]) -> None:
    for one, result in zip(changes, applied.results, strict=True):
        if one.done.done():
            continue
        if isinstance(result, _Raised):
            one.done.set_exception(result.error)
        else:
            one.done.set_result(result)


def _end(taken: dict[str, list[_Change[S]]], why: BaseException) -> None:
    for changes in taken.values():
        for one in changes:
            if not one.done.done():
                one.done.cancel() if isinstance(why, asyncio.CancelledError) else one.done.set_exception(why)


# -------------------------------------------------------------------------------------------------------------- codecs


def _moved_breaker(state: BreakerState, by_s: int) -> BreakerState:
    return replace_struct(
        state,
        slots=tuple((second + by_s, attempts, failures) for second, attempts, failures in state.slots),
        open_until_s=None if state.open_until_s is None else state.open_until_s + by_s,
        lease_until_s=state.lease_until_s + by_s if state.lease_id is not None else 0.0,
    )


def _moved_bucket(bucket: Bucket | None, by_s: int) -> Bucket | None:
    return bucket and replace(bucket, at_s=bucket.at_s + by_s)


def _moved_buckets(state: BucketState, by_s: int) -> BucketState:
    slots = tuple((second + by_s, requests, tokens) for second, requests, tokens in state.slots)
    return BucketState(slots, _moved_bucket(state.requests, by_s), _moved_bucket(state.tokens, by_s))


def _codec(kind: type[S], moved: Callable[[S, int], S]) -> Codec[S]:
    decoder = msgspec.json.Decoder(kind)
    return Codec(msgspec.json.Encoder().encode, decoder.decode, moved)


BREAKERS: Codec[BreakerState] = _codec(BreakerState, _moved_breaker)
BUCKETS: Codec[BucketState] = _codec(BucketState, _moved_buckets)
