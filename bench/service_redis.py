"""Replicas that share a Redis: how the rate grows with a second one."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from bench.late_server import LATE_S
from bench.measure import Row, server
from nbllm.engines.supervised import free_port
from nbllm.service.keys import open_keys

SECONDS = 6.0
SLOTS = 24
"""Requests that a replica runs at once: by this its rate is bounded, not by the processors, which all share here."""
_SETTINGS = """
ladder = ["lab/m"]
recordings = false

[endpoints.lab]
base_url = "{base_url}"
input_usd_per_mtok = 1
output_usd_per_mtok = 1

[service]
keys_file = "keys.json"
max_running = {slots}
max_waiting = 1000

[service.tiers.default]
requests_per_minute = 10000000
tokens_per_minute = 1000000000
day_usd = "100000"
"""


def shared(_: str, home: Path) -> list[Row]:
    """Measure one and two replicas, with keys, limits, budgets, ledger and cache on, each call another question."""
    if shutil.which("redis-server") is None:
        return [Row("two replicas on one Redis", ">= 1.6 x one", "no redis-server here", "", None)]
    with server("bench.late_server") as base_url:
        bound = {count: _rate(home / f"bound{count}", base_url, count, SLOTS) for count in (1, 2)}
        free = {count: _rate(home / f"free{count}", base_url, count, 1000) for count in (1, 2)}
    times = bound[2] / bound[1]
    slots = f"{SLOTS} requests at once each, a model that takes {LATE_S * 1000:.0f} ms"
    both = f"{free[1]:,.0f}/s and {free[2]:,.0f}/s: {os.cpu_count()} processors for replicas, Redis, model and load"
    return [
        Row(
            f"two replicas on one Redis, {slots}",
            ">= 1.6 x one",
            f"{times:.2f} x ({bound[2]:,.0f}/s)",
            f"one: {bound[1]:,.0f}/s",
            times >= 1.6,
        ),
        Row("the same, bounded by the processors only", "reported", both, "", None),
    ]


def _rate(folder: Path, base_url: str, replicas: int, slots: int) -> float:
    """Return the answers a second of so many replicas."""
    folder.mkdir(parents=True)
    (folder / "settings.toml").write_text(_SETTINGS.format(base_url=base_url, slots=slots))
    key, _ = open_keys(folder, str(folder / "keys.json"), {}).make("default")
    with _redis(folder) as url, _replicas(folder, url, replicas) as addresses:
        return asyncio.run(_load(addresses, key, callers=min(slots, 64) * 3 // 2))


async def _load(addresses: list[str], key: str, *, callers: int) -> float:
    """Ask each replica with so many callers; return the answers a second after a warm-up."""
    headers = {"Authorization": f"Bearer {key}"}
    statuses: Counter[int] = Counter()
    began_s = time.perf_counter() + 1.0
    until_s = began_s + SECONDS
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask(address: str, name: str) -> None:
            number = 0
            while (now_s := time.perf_counter()) < until_s:
                number += 1
                body = {"model": "lab/m", "messages": [{"role": "user", "content": f"{name} {number}"}], "max_tokens": 100}
                async with http.post(f"{address}/v1/chat/completions", json=body) as response:
                    await response.read()
                    if now_s >= began_s:
                        statuses[response.status] += 1

        await asyncio.gather(*(ask(address, f"{n} {address}") for address in addresses for n in range(callers)))
    if set(statuses) != {200}:
        raise RuntimeError(f"Not only answers: {dict(statuses)}")
    return statuses[200] / SECONDS


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@contextmanager
def _replicas(folder: Path, url: str, count: int) -> Iterator[list[str]]:
    addresses, processes = [], []
    try:
        for number in range(count):
            port = free_port()
            environ = {**os.environ, "REDIS_URL": url, "NBLLM_HOME": str(folder / f"home{number}")}
            command = [sys.executable, "-m", "nbllm.cli", "serve", str(folder), "--port", str(port)]
            processes.append(subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            addresses.append(f"http://127.0.0.1:{port}")
        asyncio.run(_ready(addresses))
        yield addresses
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


async def _ready(addresses: list[str]) -> None:
    give_up_s = time.monotonic() + 60
    async with aiohttp.ClientSession() as http:
        for address in addresses:
            while True:
                try:
                    async with http.get(f"{address}/ready") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                if time.monotonic() > give_up_s:
                    raise RuntimeError(f"{address} did not start.")
                await asyncio.sleep(0.1)
