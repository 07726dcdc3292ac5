"""Two replicas and a worker on one Redis, all of them real: what a caller sees of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.fault_behaviours import error, ok
from tests.services.cluster import Caller, Cluster, running_cluster, until_ready
from tests.starvation import Stopwatch


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests of this file."""
    with running_cluster(tmp_path_factory.mktemp("cluster") / "app") as made:
        yield made


def test_200_equal_keys_run_once(cluster: Cluster) -> None:
    """Of 200 requests with one Idempotency-Key, at once and through both replicas, one runs; asked again all get its answer."""

    async def main() -> None:
        async with Caller(cluster) as caller:

            async def ask(number: int) -> int:
                body = {"text": "once", "seconds": 0.3}
                answer = await caller.post("/flows/note", body, replica=number % 2, Idempotency_Key="one-key")
                assert answer.status in (200, 409), answer.body
                return answer.status

            statuses = Counter(await asyncio.gather(*(ask(number) for number in range(200))))
            assert statuses[200] >= 1
            assert cluster.runs.count("once") == 1
            bodies = set()
            for number in range(10):
                again = await caller.post(
                    "/flows/note", {"text": "once", "seconds": 0.3}, replica=number % 2, Idempotency_Key="one-key"
                )
                assert again.status == 200
                bodies.add(again.body)
            assert len(bodies) == 1
            assert cluster.runs.count("once") == 1

    asyncio.run(main())


def test_a_killed_replica_leaves_its_keys_unknown(cluster: Cluster) -> None:
    """The other says "in flight" until the lease has lapsed, then that nobody knows; on purpose the request runs again."""
    third = len(cluster.urls)
    until_ready(cluster, cluster.replica())

    async def main() -> None:
        async with Caller(cluster) as caller:
            body = {"text": "twice", "seconds": 1.0}
            lost = asyncio.create_task(caller.post("/flows/note", body, replica=third, Idempotency_Key="lost"))
            while "twice" not in cluster.runs:
                await asyncio.sleep(0.02)
            cluster.kill(cluster.processes[-1])
            with pytest.raises(aiohttp.ClientError):
                await lost
            told = []
            give_up_s = time.monotonic() + 25
            while "idempotency-outcome-unknown" not in told:
                answer = await caller.post("/flows/note", body, replica=1, Idempotency_Key="lost")
                assert answer.status == 409, answer.body
                told.append(answer.json["type"].rpartition(":")[2])
                assert time.monotonic() < give_up_s, told
                await asyncio.sleep(0.2)
            assert told[0] == "idempotency-in-flight"
            again = await caller.post("/flows/note", body, replica=0, Idempotency_Key="lost", Idempotency_Retry="true")
            assert (again.status, cluster.runs.count("twice")) == (200, 2)
            assert (await caller.post("/flows/note", body, replica=1, Idempotency_Key="lost")).body == again.body

    asyncio.run(main())


def test_a_budget_worth_two_calls_lets_none_over(cluster: Cluster) -> None:
    """Of 40 calls at once with a key whose day is worth two, through both replicas, two reach the model;
    forty at once that each may cost 0.256 of 0.6 dollars.
    """
    cluster.upstream.script("m", [ok(delay_s=1.0)])
    before = cluster.upstream.count("m")

    async def main() -> Counter[int]:
        async with Caller(cluster, cluster.poor_key) as caller:
            asks = (caller.post("/flows/triage", {"ticket": f"ticket {n}"}, replica=n % 2) for n in range(40))
            return Counter(answer.status for answer in await asyncio.gather(*asks))

    statuses = asyncio.run(main())
    sent = cluster.upstream.count("m") - before
    assert (sent, statuses[200], sum(statuses.values())) == (2, 2, 40), statuses
    cluster.upstream.script("m", [ok()])


def test_a_breaker_opened_on_one_replica_is_seen_by_the_other(cluster: Cluster) -> None:
    """Failures through one replica; then the other refuses without asking the model, and both work again afterwards."""
    cluster.upstream.script("m", [error(500)])

    async def main() -> None:
        async with Caller(cluster) as caller:
            for number in range(8):
                await caller.post("/flows/triage", {"ticket": f"broken {number}"}, replica=0)
            sent = cluster.upstream.count("m")
            await asyncio.sleep(0.4)
            answer = await caller.post("/flows/triage", {"ticket": "and you?"}, replica=1)
            assert answer.status == 503, answer.body
            assert cluster.upstream.count("m") == sent
            cluster.upstream.script("m", [ok()])

    asyncio.run(main())
    with cluster.redis.client() as client:  # the half minute that it would rest is not waited for
        for name in client.keys("*:breaker:*"):
            client.delete(name)


def test_jobs_run_on_workers(cluster: Cluster) -> None:
    """A job that one replica took is run by a worker, and its result is there on the other."""

    async def main() -> None:
        async with Caller(cluster) as caller:
            taken = await caller.post("/flows/note/jobs", {"text": "job"}, replica=0)
            assert taken.status == 202, taken.body
            where = taken.headers["location"]
            give_up_s = time.monotonic() + 20
            while (job := (await caller.get(where, replica=1)).json)["status"] not in ("done", "failed"):
                assert time.monotonic() < give_up_s, (job, cluster.logs())
                await asyncio.sleep(0.05)
            assert (job["status"], job["result"]) == ("done", "job")
            assert cluster.runs.count("job") == 1
        async with Caller(cluster, cluster.other_key) as stranger:
            assert (await stranger.get(where, replica=1)).status == 404

    asyncio.run(main())


def test_what_flows_print_and_log_is_in_no_log(cluster: Cluster) -> None:
    """Neither a replica's log nor a worker's holds it; a worker's says what became of a job."""

    async def main() -> None:
        async with Caller(cluster) as caller:
            assert (await caller.post("/flows/note", {"text": "logged"})).status == 200
            taken = await caller.post("/flows/note/jobs", {"text": "logged"})
            give_up_s = time.monotonic() + 30
            while (await caller.get(taken.headers["location"])).json["status"] != "done":
                assert time.monotonic() < give_up_s, cluster.logs()
                await asyncio.sleep(0.05)
            job_id = taken.json["id"]
            for found in (b"of note: done", b"printed 7 characters", b"Said at flows.py"):
                while not any(found in line and job_id.encode() in line for line in lines()):
                    assert time.monotonic() < give_up_s, (found, cluster.logs())
                    await asyncio.sleep(0.05)

    def lines() -> list[bytes]:
        return [line for path in cluster.folder.glob("*.log") for line in path.read_bytes().splitlines()]

    asyncio.run(main())
    assert not [line for line in lines() if b"PRIVATE" in line]


def test_the_queue_is_where_the_export_says(cluster: Cluster) -> None:
    """The list by whose length an export scales its workers is the one that messages wait in."""
    from celery import Celery

    from nbllm.export.files import JOBS_QUEUE
    from nbllm.service.celery_app import announcing, celery_app
    from nbllm.service.redis_jobs import MESSAGES
    from nbllm.service.sharing import namespace_of

    broker: Celery = celery_app(cluster.redis.url, namespace_of("nobody-listens"))
    announcing(broker)("id")
    broker.close()
    waits_in = JOBS_QUEUE.format(app="nobody-listens")
    with cluster.redis.client() as client:
        assert client.llen(waits_in) == 1
    assert waits_in == f"{namespace_of('nobody-listens')}:{MESSAGES}", "the list whose length bounds what workers are told"


def test_redis_stops_and_starts_in_mid_run(cluster: Cluster) -> None:
    """While it is gone what protects money refuses with 503, /ready says so, /health does not; nothing is restarted afterwards."""

    async def main() -> None:
        async with Caller(cluster) as caller:
            assert (await caller.post("/flows/note", {"text": "before"})).status == 200
            cluster.redis.stop()
            for number in range(6):
                watch = Stopwatch(others=True)
                answer = await caller.post("/flows/note", {"text": "while"}, replica=number % 2)
                assert answer.status == 503, answer.body
                assert "retry-after" in answer.headers
                assert watch.s < 2
            assert (await caller.get("/health")).status == 200
            assert (await caller.get("/ready")).status == 503
            cluster.redis.start()
            give_up_s = time.monotonic() + 30
            while (await caller.post("/flows/note", {"text": "after"}, replica=1)).status != 200:
                assert time.monotonic() < give_up_s
                await asyncio.sleep(0.1)
            taken = await caller.post("/flows/note/jobs", {"text": "job-after"}, replica=0)
            assert taken.status == 202, taken.body
            give_up_s = time.monotonic() + 30
            while (job := (await caller.get(taken.headers["location"], replica=1)).json)["status"] != "done":
                assert time.monotonic() < give_up_s, (job, cluster.logs())
                await asyncio.sleep(0.1)

    asyncio.run(main())


def test_nothing_of_this_is_in_the_logs(cluster: Cluster) -> None:
    """Neither keys nor what was asked are in the logs of replicas and workers."""
    text = "".join(path.read_text(errors="replace") for path in Path(cluster.folder).glob("*.log"))
    assert text
    assert cluster.key not in text
    assert "broken 3" not in text
