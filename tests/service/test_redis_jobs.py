"""The JobStore of several replicas and workers: the conformance suite on a real Redis."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from hypothesis import settings

from nbllm.service.celery_app import announcing, broker_url, celery_app
from nbllm.service.ports import JobLease, JobsFull
from nbllm.service.redis_jobs import MESSAGES, RedisJobs
from nbllm.storage.redis_link import Link
from tests.redis_server import RedisServer
from tests.service.conformance_idempotency import KEEP_S, Clock
from tests.service.conformance_jobs import MOST_LAPSES, JobsConformance, added, lease, new
from tests.service.job_machine import JobsMachine
from tests.service.redis_world import RedisWorld


def make(link: Link, clock: Clock) -> RedisJobs:
    return RedisJobs(link, keep_s=KEEP_S, most_lapses=MOST_LAPSES, now=clock)


def lapse(server: RedisServer, link: Link, got: Any) -> None:
    if isinstance(got, JobLease):
        with server.client() as client:
            if client.hget(link.key(f"jobs:job:{got.job.job_id}"), "fencing") == str(got.fencing).encode():
                client.zadd(link.key("jobs:leases"), {got.job.job_id: 0}, xx=True)


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[RedisWorld[RedisJobs]]:
    made = RedisWorld(redis_server, make, "claim", lapse)
    yield made
    made.close()


class TestRedis(JobsConformance):
    """The suite on Redis."""


def test_any_order_of_events(redis_server: RedisServer) -> None:
    """The machine of the suite finds no order of events in which a job is lost, or two may write one's end."""

    class Machine(JobsMachine):
        make_world = staticmethod(lambda: RedisWorld(redis_server, make, "claim", lapse))

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=30, deadline=None))


def test_a_lease_lapses_by_itself_and_renewing_keeps_it(redis_server: RedisServer) -> None:
    """A worker that gives no sign of life for the time of its lease loses its job to the next sweep; one that does keeps it."""
    redis_server.flush()

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisJobs(link, lease_s=0.15)
        await added(store, new(), new())
        dead, living = await lease(store), await lease(store)
        for _ in range(3):
            await asyncio.sleep(0.08)
            assert await store.renew(living) == "held"
        assert await store.sweep() == [dead.job.job_id]
        assert await store.renew(dead) == "lost"
        await link.aclose()

    asyncio.run(main())


def test_webhooks_are_due_by_one_clock(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine that is a day ahead asks for another try in ten minutes: it comes in ten minutes, whoever looks."""
    redis_server.flush()
    real = time.time

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisJobs(link)
        (job,) = await added(store, new(webhook="https://example.org/h"))
        assert await store.finish(await lease(store), "done", result="1")
        (due,) = await store.due_webhooks(5)
        monkeypatch.setattr(time, "time", lambda: real() + 90_000)
        await store.webhook_settled(due.job.job_id, again_at=time.time() + 600)
        monkeypatch.setattr(time, "time", real)
        with redis_server.client() as client:
            again_at = client.zscore(link.key("jobs:hooks"), job.job_id)
        assert again_at is not None
        assert abs(again_at - real() - 600) < 60
        await link.aclose()

    asyncio.run(main())


def test_a_lease_ends_although_the_clock_was_set_back(redis_server: RedisServer) -> None:
    """Redis's clock goes back by an hour: the job of a worker that died waits for its lease's time, and not for an hour."""
    redis_server.flush()

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisJobs(link, lease_s=0.2)
        await added(store, new(), new())
        dead, living = await lease(store), await lease(store)
        with redis_server.client() as client:
            for held in (dead, living):
                client.zadd(link.key("jobs:leases"), {held.job.job_id: time.time() + 3600})
        assert await store.sweep() == []
        for _ in range(3):
            await asyncio.sleep(0.1)
            assert await store.renew(living) == "held"
        assert await store.sweep() == [dead.job.job_id]
        await link.aclose()

    asyncio.run(main())


def test_fencing_grows_although_redis_lost_everything(redis_server: RedisServer) -> None:
    """A worker of before, whose lease is long gone, cannot end a job of after: its number is no number of now."""
    numbers = []

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisJobs(link)
        for _ in range(3):
            redis_server.flush()
            await added(store, new(), new())
            numbers.extend([(await lease(store)).fencing, (await lease(store)).fencing])
        await link.aclose()

    asyncio.run(main())
    assert numbers == sorted(set(numbers))


def test_workers_are_told(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a new job, of one that was given back or swept, and again of one that waits, in case the message was lost.

    A broker that fails keeps no job from being taken.
    """
    redis_server.flush()
    monkeypatch.setattr("nbllm.service.redis_jobs.TELL_AGAIN_S", 0.05)
    told: list[str] = []

    def announce(job_id: str) -> None:
        told.append(job_id)
        raise ConnectionError("no broker")

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisJobs(link, announce=announce)
        (job,) = await added(store, new())
        assert told == [job.job_id]
        assert await store.give_back(await lease(store))
        assert len(told) == 2
        await store.sweep()
        await asyncio.sleep(0.1)
        assert await store.sweep() == []
        assert told == [job.job_id] * 3
        await link.aclose()

    asyncio.run(main())


def test_never_more_messages_than_jobs_that_wait(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody takes them, neither being told again and again nor jobs that come and are cancelled lengthens the list.

    Messages that were lost are sent again, as many as are missing and not one more.
    """
    redis_server.flush()
    monkeypatch.setattr("nbllm.service.redis_jobs.TELL_AGAIN_S", -1.0)

    async def main() -> None:
        link = Link(redis_server.url)
        messages = link.key(MESSAGES)
        with redis_server.client() as broker:
            store = RedisJobs(link, announce=lambda job_id: broker.lpush(messages, job_id))
            jobs = await added(store, *[new()] * 30)
            for _ in range(4):
                await store.sweep()
                assert broker.llen(messages) == 30
            for _ in range(5):
                for job in jobs:
                    await store.cancel("a", job.job_id)
                jobs = await added(store, *[new()] * 30)
            assert broker.llen(messages) == 30
            broker.ltrim(messages, 0, 9)
            for _ in range(3):  # the first one sees the jobs for the first time
                await store.sweep()
            assert broker.llen(messages) == 30
            broker.delete(messages)
            assert await store.give_back(await lease(store))
            assert broker.llen(messages) == 1
        await link.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("user", ["", "default:secret@"])
def test_messages_are_where_the_rows_are(redis_server: RedisServer, user: str) -> None:
    """Celery reaches the database that REDIS_URL names, with its password, also where options stand behind the address."""
    redis_server.flush()
    url = f"unix://{user}{redis_server.socket}?db=3&socket_timeout=2"
    with redis_server.client() as client, closing(celery_app(url, "nbllm:app")) as broker:
        client.config_set("requirepass", "secret" if user else "")
        try:
            announcing(broker)("id")
            with redis.Redis.from_url(url) as there:
                assert there.llen(f"nbllm:app:{MESSAGES}") == 1
        finally:
            client.config_set("requirepass", "")


def test_options_of_an_address_on_the_way_to_celery() -> None:
    """The database is named as redis-py names it, what TLS is to trust is kept, and certificates are checked unless told not to."""
    assert broker_url("redis://:secret@host?db=2&socket_timeout=2") == "redis://:secret@host/2"
    assert broker_url("redis://host:7000/4") == "redis://host:7000/4"
    assert celery_app("rediss://host/1", "n").conf.broker_use_ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    asked = celery_app("rediss://host/1?ssl_ca_certs=/ca.pem", "n").conf.broker_use_ssl
    assert asked == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}


def test_workers_are_told_although_the_clock_was_set_back(redis_server: RedisServer) -> None:
    """A job of which a worker was told at a time that has not come yet is told of again now."""
    redis_server.flush()
    told: list[str] = []

    async def main() -> None:
        link = Link(redis_server.url)
        store = RedisJobs(link, announce=told.append)
        (job,) = await added(store, new())
        with redis_server.client() as client:
            client.zadd(link.key("jobs:told"), {job.job_id: time.time() + 3600})
        await store.sweep()
        assert told == [job.job_id] * 2
        await link.aclose()

    asyncio.run(main())


def test_what_was_asked_is_dropped_at_the_end(redis_server: RedisServer, world: RedisWorld[RedisJobs]) -> None:
    """An ended job holds its result; what was asked is nowhere on Redis any more, and no list reads either."""

    async def main() -> None:
        store = world.open()
        done, cancelled, waits = await added(store, *(new(arguments=f'"a private question {number}"') for number in range(3)))
        await store.finish(await lease(store), "done", result='"an answer"')
        await store.cancel("a", cancelled.job_id)
        assert [(await store.get("a", job.job_id) or done).arguments for job in (done, cancelled)] == ["", ""]
        assert (await store.get("a", waits.job_id) or done).arguments == '"a private question 2"'
        listed = await store.list("a", "triage", limit=5)
        assert {(job.arguments, job.result, job.problem) for job in listed} == {("", None, None)}
        assert [(job.job_id, job.status) for job in listed] == [
            (waits.job_id, "queued"), (cancelled.job_id, "cancelled"), (done.job_id, "done"),
        ]  # fmt: skip
        with redis_server.client() as client:
            held = b"".join(b"".join(client.hvals(key)) for key in client.scan_iter("*jobs:job:*"))
        assert b"a private question 2" in held
        assert b"a private question 0" not in held
        assert b"a private question 1" not in held

    world.run(main())


def test_what_one_caller_may_keep(redis_server: RedisServer) -> None:
    """Jobs that ended count until they are forgotten; another caller is not touched by it, and nothing is counted for ever."""

    def small(link: Link, clock: Clock) -> RedisJobs:
        return RedisJobs(link, keep_s=KEEP_S, most_kept_bytes=10_000, now=clock)

    world = RedisWorld(redis_server, small, "claim", lapse)
    large = new(arguments='"' + "x" * 2000 + '"')

    async def main() -> None:
        store = world.open()
        for _ in range(3):
            await added(store, large)
            await store.finish(await lease(store), "done", result='"' + "y" * 2000 + '"')
        await added(store, new())
        with pytest.raises(JobsFull, match="may be kept"):
            await added(store, large)
        await added(store, new("b", arguments=large.arguments))
        for _ in range(2):
            await store.finish(await lease(store), "done", result="1")
        world.clock.now += KEEP_S + 1
        await store.sweep()
        with redis_server.client() as client:
            assert not list(client.scan_iter("*jobs:kept_of"))
        await added(store, large)

    world.run(main())
    world.close()
