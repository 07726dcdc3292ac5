"""A Redis that is there and cannot: it loads, its disk or memory is full, it became a replica, or its connection breaks oddly.

Whatever it is, what protects money refuses with 503, what needs no Redis answers, and nothing is started anew when it is over.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from nbllm.errors import StorageError
from nbllm.service import create_app, jobs, remote_hands
from nbllm.service.configuration import ServiceSettings
from nbllm.service.redis_jobs import RedisJobs
from nbllm.service.sweeper import Sweeper
from nbllm.storage.redis_link import Link, RedisGone
from nbllm.storage.redis_runner import Runner
from tests.client.helpers import until
from tests.redis_server import RedisServer, running_redis
from tests.service.conformance_jobs import new
from tests.service.flow_apps import say
from tests.service.running import Running, running, write_settings

MOODS = (
    "LOADING Redis is loading the dataset in memory",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
)


@contextmanager
def moody(socket: Path, mood: str) -> Iterator[Callable[[], None]]:
    """Answer every command at a socket with one error, as a Redis in that state does, for a with block; yield what ends it."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while head := await reader.readline():
            for _ in range(int(head[1:])):
                await reader.readexactly(int((await reader.readline())[1:]) + 2)
            writer.write(f"-{mood}\r\n".encode())

    async def serve() -> None:
        async with await asyncio.start_unix_server(answer, socket):
            began.set()
            await asyncio.to_thread(over.wait)
            for writer in writers:
                writer.close()

    began, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()

    def end() -> None:
        over.set()
        thread.join(30)

    try:
        assert began.wait(30)
        yield end
    finally:
        end()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    with running_redis() as own:
        yield own


@contextmanager
def replica(
    folder: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch, tier: str = "default", more: str = ""
) -> Iterator[Running]:
    """One replica on a Redis, in this process."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    with running(create_app([say], settings=write_settings(folder, more)), tier=tier) as app:
        yield app


def asked(app: Running, text: str, **headers: str) -> httpx.Response:
    body = {"model": "sim/small", "messages": [{"role": "user", "content": text}]}
    sent = {**app.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(f"{app.url}/v1/chat/completions", json=body, headers=sent, timeout=30)


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1


def streams(app: Running) -> httpx.Response:
    return httpx.post(f"{app.url}/flows/say/stream", json={"text": "a"}, headers=app.headers, timeout=30)


@pytest.mark.parametrize("mood", MOODS, ids=lambda mood: mood.split()[0].casefold())
def test_a_redis_that_cannot_is_like_one_that_is_gone(
    mood: str, tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica starts on such a Redis, refuses with 503 what counts on it, says so at /ready, and works as soon as Redis does."""
    server.stop()
    with moody(server.socket, mood) as end, replica(tmp_path, server, monkeypatch) as app:
        for number in range(3):
            assert refused(asked(app, f"while {number}"))
        ready = httpx.get(f"{app.url}/ready")
        assert (ready.status_code, "limits" in ready.json()["missing"]) == (503, True)
        assert refused(httpx.post(f"{app.url}/flows/say/jobs", json={"text": "a"}, headers=app.headers))
        assert httpx.get(f"{app.url}/health").status_code == 200
        end()
        server.start()
        until(lambda: asked(app, "after").status_code == 200)
        assert httpx.post(f"{app.url}/flows/say/jobs", json={"text": "a"}, headers=app.headers).status_code == 202
        assert asked(app, "after", Idempotency_Key="one").status_code == 200
        until(lambda: httpx.get(f"{app.url}/ready").status_code == 200)


@pytest.mark.filterwarnings("ignore::nbllm.errors.NbllmWarning")  # that nothing is kept: the flow says it, as a notebook would
@pytest.mark.parametrize("mood", [None, *MOODS[:2]], ids=["gone", "loading", "misconf"])
def test_a_key_without_limits_gets_answers_without_redis(
    mood: str | None, tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers go on, without a cache: whole ones, streams and flows. An Idempotency-Key, which promises, is refused with 503."""
    server.stop()
    with moody(server.socket, mood) if mood else monkeypatch.context(), replica(tmp_path, server, monkeypatch, "unlimited") as app:
        for number in range(3):
            answer = asked(app, "the same")
            assert (answer.status_code, answer.headers["x-source"]) == (200, "model"), (number, answer.text)
        assert "event: reply" in streams(app).text
        assert httpx.post(f"{app.url}/flows/say", json={"text": "a"}, headers=app.headers).status_code == 200
        assert refused(asked(app, "the same", Idempotency_Key="one"))


RICH = '[service.tiers.rich]\nrequests_per_minute = "none"\nstreams = "none"\nday_usd = "5.00"\n'


def test_a_key_with_a_budget_gets_none_without_redis(tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier whose only limit is its money is refused with 503 while nobody knows what is spent, and answered afterwards."""
    with replica(tmp_path, server, monkeypatch, "rich", RICH) as app:
        server.stop()
        answer = asked(app, "while")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "budget_unavailable")
        server.start()
        until(lambda: asked(app, "after").status_code == 200)


@pytest.mark.parametrize("tier", ["default", "rich"])
def test_who_says_so_gets_answers_without_limits(
    tier: str, tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With on_state_loss = "allow" limits, streams and budgets let requests pass while Redis is gone."""
    server.stop()
    with replica(tmp_path, server, monkeypatch, tier, 'on_state_loss = "allow"\n' + RICH) as app:
        assert asked(app, "while").status_code == 200
        assert streams(app).status_code == 200


def test_jobs_that_no_worker_takes_are_counted_and_said(
    tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/metrics has how many wait and for how long, and no number while nobody knows; the log says that there is no worker."""
    monkeypatch.setattr(jobs, "SWEEP_EVERY_S", 0.0)
    monkeypatch.setattr(jobs, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(remote_hands, "WAITED_S", 0.2)
    with replica(tmp_path, server, monkeypatch) as app:
        said: list[str] = []
        monkeypatch.setattr(remote_hands._log, "warning", lambda text, *rest: said.append(text % rest))
        for _ in range(3):
            assert httpx.post(f"{app.url}/flows/say/jobs", json={"text": "a"}, headers=app.headers).status_code == 202
        until(lambda: said)
        page = metrics(app)
        assert (page['nbllm_jobs{status="queued"}'], page['nbllm_jobs{status="running"}']) == (3, 0)
        assert 0.2 < page["nbllm_jobs_oldest_queued_seconds"] < 60
        server.stop()
        page = metrics(app)
        assert 'nbllm_jobs{status="queued"}' not in page
        assert math.isnan(page["nbllm_jobs_oldest_queued_seconds"])
    said = [line for line in said if "no worker" in line]
    assert len(said) == 1  # not at each look
    assert re.match(r"Jobs wait \(\d, the oldest for \d+ s\), and no worker takes them: celery --app nbllm", said[0])


def metrics(app: Running) -> dict[str, float]:
    page = httpx.get(f"{app.url}/metrics", headers=app.headers, timeout=30).text
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in page.splitlines() if line[:1] != "#")}


def test_a_primary_that_became_a_replica_is_left_for_where_the_primary_is_now(server: RedisServer, tmp_path: Path) -> None:
    """After a failover the address leads to another Redis while the old one keeps its connections: they are not stuck there."""

    async def run() -> None:
        link = Link(server.url, rest_s=0.1)
        assert await link.call("SET", "nbllm:a", "1")
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        server.socket.rename(server.socket.with_name("old"))
        with running_redis() as new_one:
            server.socket.symlink_to(new_one.socket)
            with pytest.raises(StorageError):
                await link.call("SET", "nbllm:a", "2")
            await asyncio.sleep(0.15)
            assert await link.call("SET", "nbllm:a", "3")
            with new_one.client() as client:
                assert client.get("nbllm:a") == b"3"
            await link.aclose()

    asyncio.run(run())


def test_an_error_that_nobody_expected_is_a_redis_that_is_gone(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked is told so, rather than cancelled for no reason of theirs; a moment later a new connection serves."""

    async def run() -> None:
        link = Link(server.url, rest_s=0.05)
        assert await link.ping()
        real = Runner._send_once

        async def broken(*_: Any) -> Any:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

        monkeypatch.setattr(Runner, "_send_once", broken)
        outcomes = await asyncio.gather(*(link.call("PING") for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [RedisGone] * 3
        monkeypatch.setattr(Runner, "_send_once", real)
        await asyncio.sleep(0.1)
        assert await link.ping()
        await link.aclose()

    asyncio.run(run())


def test_the_sweep_goes_on_after_any_error(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw costs one round, not all jobs of workers that die from then on."""
    swept: list[float] = []

    async def sweep(_: RedisJobs) -> list[str]:
        swept.append(time.monotonic())
        if len(swept) < 3:
            raise ValueError("a row that makes no sense")
        return []

    monkeypatch.setattr(RedisJobs, "sweep", sweep)
    service: Any = SimpleNamespace(name="an-app", config=ServiceSettings())
    sweeper = Sweeper(service, server.url, lambda _: None, every_s=0.02)
    sweeper.start()
    until(lambda: len(swept) >= 5)
    sweeper.stop()


def test_rows_that_are_gone_do_not_stand_in_the_way(server: RedisServer) -> None:
    """An entry of the queue, or of webhooks, whose row somebody deleted is dropped: the next one is taken."""

    async def run() -> None:
        link = Link(server.url)
        store = RedisJobs(link)
        lost = await store.add(new(webhook="https://example.org/"), most_queued=9, most_of_caller=9)
        there = await store.add(new(), most_queued=9, most_of_caller=9)
        with server.client() as client:
            client.zadd("nbllm:jobs:hooks", {lost.job_id: 0})
            client.delete(f"nbllm:jobs:job:{lost.job_id}")
        assert await store.due_webhooks(9) == []
        lease = await store.claim()
        assert lease is not None
        assert lease.job.job_id == there.job_id
        assert await store.claim() is None
        await link.aclose()

    asyncio.run(run())
