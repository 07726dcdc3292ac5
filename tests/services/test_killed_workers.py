"""Workers that are killed, again and again: every job that was accepted comes to its end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.services.cluster import Caller, Cluster, running_cluster

CYCLES = 50
WHOLE = (10, 20, 30, 40)
"""Cycles in which the whole worker is killed, its main process too, and another is started."""


@pytest.mark.timeout(420)
def test_killed_workers_lose_no_accepted_job(tmp_path: Path) -> None:
    """In 50 cycles of kill -9 while jobs run, no accepted job is lost: each is done, with its own result, and ran at least once."""
    with running_cluster(tmp_path / "app", replicas=1, workers=0) as cluster:
        ids = asyncio.run(_killing(cluster))
        runs = Counter(cluster.runs)
        assert len(ids) == 2 * CYCLES
        assert all(runs[text] >= 1 for text in ids)
        assert sum(runs.values()) > len(ids), "no run was cut short: the test killed nobody at work"


@pytest.mark.timeout(120)
def test_a_worker_that_is_told_to_end_puts_its_job_back(tmp_path: Path) -> None:
    """SIGTERM: what does not finish in the grace is queued again, which counts as no death, and the worker is gone soon after."""
    with running_cluster(tmp_path / "app", replicas=1, workers=1) as cluster:
        asyncio.run(_ending(cluster))


async def _ending(cluster: Cluster) -> None:
    worker = cluster.processes[-1]
    async with Caller(cluster) as caller:
        taken = await caller.post("/flows/note/jobs", {"text": "long", "seconds": 60})
        where = taken.headers["location"]
        await _until(cluster, caller, where, "running")
        worker.terminate()
        await _until(cluster, caller, where, "queued")
        give_up_s = time.monotonic() + 20
        while worker.poll() is None:
            assert time.monotonic() < give_up_s, cluster.logs()
            await asyncio.sleep(0.1)
    with cluster.redis.client() as client:
        (name,) = client.keys("nbllm:app:jobs:job:*")
        assert int(client.hget(name, "lapses") or 0) == 0


async def _until(cluster: Cluster, caller: Caller, where: str, status: str) -> None:
    give_up_s = time.monotonic() + 30
    while (job := (await caller.get(where)).json)["status"] != status:
        assert time.monotonic() < give_up_s, (job, cluster.logs())
        await asyncio.sleep(0.05)


async def _killing(cluster: Cluster) -> dict[str, str]:
    """Kill, then wait for the ends; return the jobs by their texts."""
    worker = cluster.worker("-c", "2")
    ids: dict[str, str] = {}
    chance = random.Random(7)
    async with Caller(cluster) as caller:
        for cycle in range(CYCLES):
            for text in (f"job{cycle}a", f"job{cycle}b"):
                while (taken := await caller.post("/flows/note/jobs", {"text": text, "seconds": 0.3})).status == 503:
                    await asyncio.sleep(0.5)  # not accepted: a disk that is busy with the kills holds Redis up
                assert taken.status == 202, taken.body
                ids[text] = taken.headers["location"]
            worker = await _somebody_runs(cluster, worker)
            await asyncio.sleep(chance.random() * 0.2)
            if cycle in WHOLE:
                cluster.kill(worker)
                worker = cluster.worker("-c", "2")
            else:
                for pid in cluster.children(worker)[:2]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        await _all_done(cluster, caller, ids, worker)
    return ids


def _alive(cluster: Cluster, worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker whose main process ended anew, as its container would be.

    Celery's gives up ("Could not start worker processes") when its children are killed as fast as it makes them.
    """
    return worker if worker.poll() is None else cluster.worker("-c", "2")


async def _somebody_runs(cluster: Cluster, worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Wait until a job runs; return the worker, which may be another by then."""
    give_up_s = time.monotonic() + 60
    with cluster.redis.client() as client:
        began = len(cluster.runs)
        while len(cluster.runs) == began and not int(client.hget("nbllm:app:jobs:counts", "running") or 0):
            worker = _alive(cluster, worker)
            assert time.monotonic() < give_up_s, cluster.logs()
            await asyncio.sleep(0.02)
    return worker


async def _all_done(cluster: Cluster, caller: Caller, ids: dict[str, str], worker: subprocess.Popen[bytes]) -> None:
    give_up_s = time.monotonic() + 180
    left = dict(ids)
    while left:
        for text, where in list(left.items()):
            answer = await caller.get(where)
            if answer.status == 503:  # as above
                continue
            job = answer.json
            assert job["status"] in ("queued", "running", "done"), job
            if job["status"] == "done":
                assert job["result"] == text
                del left[text]
        worker = _alive(cluster, worker)
        assert time.monotonic() < give_up_s, (left, cluster.logs())
        await asyncio.sleep(0.5)
