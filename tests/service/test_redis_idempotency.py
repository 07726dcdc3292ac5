"""The IdempotencyStore of several replicas: the conformance suite on a real Redis."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from nbllm.errors import StorageError
from nbllm.service.ports import Blocked, Claim
from nbllm.service.redis_idempotency import RedisIdempotency
from nbllm.service.redis_jobs import RedisJobs
from nbllm.storage.redis_link import Link
from tests.redis_server import RedisServer
from tests.service.conformance_idempotency import KEEP_S, MOST_KEPT_BYTES, OK, Clock, IdempotencyConformance
from tests.service.conformance_jobs import added, lease, new
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


A_DAY_AHEAD = """
import asyncio, sys, time
real = time.time
time.time = lambda: real() + 90_000
from nbllm.service.redis_idempotency import RedisIdempotency
from nbllm.service.redis_jobs import RedisJobs
from nbllm.storage.redis_link import Link

async def main():
    link = Link(sys.argv[1], op_s=30)
    await RedisJobs(link).sweep()
    found = await RedisIdempotency(link).begin("a", "k", "f")
    print(type(found).__name__)
    await link.aclose()

asyncio.run(main())
"""


def test_a_replica_whose_clock_is_wrong_forgets_and_runs_nothing(redis_server: RedisServer) -> None:
    """What is kept ages by one clock, Redis's: on the one machine that is a day ahead no key is free, and no result is dropped."""
    redis_server.flush()

    async def main() -> None:
        link = Link(redis_server.url)
        store, jobs = RedisIdempotency(link), RedisJobs(link)
        claim = await store.begin("a", "k", "f")
        assert isinstance(claim, Claim)
        assert await store.finish(claim, OK)
        (job,) = await added(jobs, new())
        assert await jobs.finish(await lease(jobs), "done", result='"paid"')
        command = [sys.executable, "-c", A_DAY_AHEAD, redis_server.url]
        ahead = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
        assert ahead.stdout == "Stored\n", ahead.stderr
        found = await jobs.get("a", job.job_id)
        assert found is not None
        assert found.result == '"paid"'
        await link.aclose()

    asyncio.run(main())


def test_without_redis_nothing_runs() -> None:
    """Where it cannot be known whether a key was used, the request is refused."""

    async def main() -> None:
        with pytest.raises(StorageError, match="does not answer"):
            await RedisIdempotency(Link("unix:///nowhere/at/all")).begin("a", "k", "f")

    asyncio.run(main())
