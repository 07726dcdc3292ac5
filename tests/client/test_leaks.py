"""After close() nothing is left: no thread, no task, no file, no socket (I7)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbllm import Client, errors
from nbllm.core import waits
from nbllm.live import DeltaEvent
from tests import fault_behaviours as f
from tests.client.helpers import check_sent, our_threads, until
from tests.fault_server import FaultServer
from tests.road.invariants import check_money, endpoint
from tests.starvation import Stopwatch


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    """Backoff takes no time here."""
    waits.skip()
    yield
    waits.unskip()


def open_files() -> dict[int, str]:
    """What this process holds open: descriptor -> what it is."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(path.name)] = str(path.readlink())
    return found


def one_call(client: Client, number: int) -> None:
    """One of eleven kinds of calls, good and bad."""
    prompt = f"hello {number % 50}"

    async def aask() -> None:
        await client.aask(prompt)

    async def astream() -> None:
        async for _ in client.astream(prompt):
            if number % 2:
                break

    async def cancelled() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.aask(prompt, model="lab/slow", cache="off"), 0.02)

    def live() -> None:
        for event in client.start(prompt, model="lab/drip", cache="off").events():
            if isinstance(event, DeltaEvent):
                break

    kinds = [
        lambda: client.ask(prompt),
        lambda: list(client.stream(prompt)),
        lambda: next(client.stream(prompt, model="lab/drip", cache="off")),
        lambda: asyncio.run(aask()),
        lambda: asyncio.run(astream()),
        lambda: asyncio.run(cancelled()),
        live,
        lambda: client.ask(prompt, model="lab/bad", retries=0),
        lambda: client.ask(prompt, model="lab/slow", deadline_s=0.05, cache="off"),
        lambda: client.embed([prompt]),
        lambda: client.ask(prompt, check=lambda text: len(text) > 3),
    ]
    with contextlib.suppress(errors.NbllmError):
        kinds[number % len(kinds)]()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted by /proc")
@pytest.mark.parametrize("closed", ["close", "aclose"])
def test_two_hundred_mixed_calls(closed: str, tmp_path: Path) -> None:
    """Two hundred calls from four threads, left early, cancelled, failed: then threads, files and sockets are as before."""
    with FaultServer() as server:
        server.script("slow", [f.stall()])
        server.script("drip", [f.drip(pace_s=0.005)])
        server.script("bad", [f.error(500), f.reset(), f.malformed(), f.rate_limited()])
        with Client(home=tmp_path / "warm", endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            client.ask("whatever is loaded once is loaded now")
            client.embed(["x"])
        gc.collect()
        until(lambda: not server.open_connections)
        files, threads = open_files(), threading.active_count()

        client = Client(home=tmp_path / "home", endpoints={"lab": endpoint(server)}, model="lab/m", recordings=True)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: one_call(client, number), range(200)))
        check_sent(client, server, {"lab/slow": "slow", "lab/drip": "drip", "lab/bad": "bad"})
        check_money(client)
        assert client._house is not None
        loop = client._house.host.loop
        until(lambda: len(asyncio.all_tasks(loop)) == 0)
        until(lambda: our_threads() == ["nbllm-loop"])  # the others end after a second without work
        watch = Stopwatch()
        if closed == "close":
            client.close()
        else:
            asyncio.run(client.aclose())
        assert watch.s < 2
        gc.collect()
        until(lambda: not server.open_connections)
        until(lambda: threading.active_count() == threads)
        left = {name for number, name in open_files().items() if files.get(number) != name}
        assert not {name for name in left if str(tmp_path) in name or name.startswith("socket:")}, left
        assert len(open_files()) <= len(files)
        assert loop.is_closed()
        assert list((tmp_path / "home" / "run").iterdir()) == [], "no run lock is left behind"
        assert not [path.name for path in (tmp_path / "home").rglob("*") if path.name.endswith(("-wal", "-shm"))]


def test_clients_in_sequence(tmp_path: Path) -> None:
    """Thirty clients made, used and closed one after the other leave no more behind than one."""
    with FaultServer() as server:

        def use() -> None:
            with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
                client.ask("hello", cache="off")

        use()
        gc.collect()
        threads, files = threading.active_count(), len(open_files()) if Path("/proc/self/fd").exists() else 0
        for _ in range(30):
            use()
        gc.collect()
        until(lambda: threading.active_count() == threads)
        if files:
            until(lambda: len(open_files()) <= files)
