"""The IdempotencyStore of several replicas: the conformance suite on a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from nbllm.errors import StorageError
from nbllm.service.ports import Blocked, Claim
from nbllm.service.redis_idempotency import RedisIdempotency
from nbllm.storage.redis_link import Link
from tests.redis_server import RedisServer
from tests.service.conformance_idempotency import KEEP_S, MOST_KEPT_BYTES, OK, Clock, IdempotencyConformance
from tests.service.idempotency_machine import IdempotencyMachine
from tests.service.redis_world import RedisWorld


def make(link: Link, clock: Clock) -> RedisIdempotency:
    return RedisIdempotency(link, keep_s=KEEP_S, most_kept_bytes=MOST_KEPT_BYTES, now=clock)


def lapse(server: RedisServer, link: Link, got: Any) -> None:
    if isinstance(got, Claim):
        name = RedisIdempotency(link)._of(got)[0]
        with server.client() as client:
            if client.hget(name, "fencing") == str(got.fencing).encode():
                client.hset(name, "until", 0)


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[RedisWorld[RedisIdempotency]]:
    made = RedisWorld(redis_server, make, "begin", lapse)
    yield made
    made.close()


class TestRedis(IdempotencyConformance):
    """The suite on Redis."""


def test_any_order_of_events(redis_server: RedisServer) -> None:
    """The machine of the suite finds no order of requests, ends, crashes and time that goes against its model."""

    class Machine(IdempotencyMachine):
        make_world = staticmethod(lambda: RedisWorld(redis_server, make, "begin", lapse))

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))


def test_a_lease_lapses_by_itself_and_renewing_keeps_it(redis_server: RedisServer) -> None:
    """Unrenewed for its time the key says that its outcome is unknown; its own living process may still end it."""
    redis_server.flush()

    async def main() -> None:
        link = Link(redis_server.url)
        store, other = RedisIdempotency(link, lease_s=0.5), RedisIdempotency(link, lease_s=0.5)
        claim = await store.begin("a", "k", "f")
        assert isinstance(claim, Claim)
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert await store.renew(claim)
            assert await other.begin("a", "k", "f") is Blocked.IN_FLIGHT
        await asyncio.sleep(0.6)
        assert await other.begin("a", "k", "f") is Blocked.UNKNOWN
        assert await store.finish(claim, OK)
        assert await other.begin("a", "k", "f") == OK
        await link.aclose()

    asyncio.run(main())


def test_a_replica_whose_clock_is_wrong_runs_nothing_twice(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers age by one clock, Redis's: a key is not free on the one machine that is a day ahead."""
    redis_server.flush()
    real = time.time

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisIdempotency(link)
        claim = await store.begin("a", "k", "f")
        assert isinstance(claim, Claim)
        assert await store.finish(claim, OK)
        monkeypatch.setattr(time, "time", lambda: real() + 90_000)
        assert await store.begin("a", "k", "f") == OK
        other = await store.begin("a", "l", "f")
        assert isinstance(other, Claim)
        assert await store.begin("a", "k", "f") == OK
        await link.aclose()

    asyncio.run(main())


def test_without_redis_nothing_runs() -> None:
    """Where it cannot be known whether a key was used, the request is refused."""

    async def main() -> None:
        with pytest.raises(StorageError, match="does not answer"):
            await RedisIdempotency(Link("unix:///nowhere/at/all")).begin("a", "k", "f")

    asyncio.run(main())
