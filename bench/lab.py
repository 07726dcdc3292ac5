"""What the JupyterLab extension costs the kernel: what a listening page adds to a call, and what it is sent."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.calls import client_for, new_prompt
from bench.fill import fill_ledger
from bench.measure import Row, per_call_s
from nbllm import Client
from nbllm.current import get_client, set_process_client
from nbllm.notebook.lab.bridge import Bridge
from nbllm.testing import FakeProvider

ROUNDS = 7
ROWS = 1_000_000


class _Page:
    """A kernel and a page in one: what is sent is packed as a kernel packs it, and kept as bytes."""

    def __init__(self) -> None:
        self.kernel = self.comm_manager = self.session = self.events = self
        self.iopub_socket = None
        self.targets: dict[str, Any] = {}
        self.comms: dict[str, Any] = {}
        self.comm_id, self.topic = "c", b"t"
        self.sent: list[tuple[float, int, str]] = []
        self.last: dict[str, Any] = {}
        self.calls = -1

    def register_target(self, name: str, opened: Any) -> None:
        self.targets[name] = opened

    def unregister_target(self, name: str, _: Any) -> None:
        del self.targets[name]

    def register(self, *_: Any) -> None: ...

    def unregister(self, *_: Any) -> None: ...

    def on_close(self, callback: Any) -> None:
        self.left = callback

    def send(self, _: Any, kind: str, content: dict[str, Any], *, ident: bytes) -> None:
        del kind, ident
        data = content["data"]
        self.sent.append((time.monotonic(), len(json.dumps(data)), data["type"]))
        self.last |= data["state"]
        self.calls = data["state"].get("session", {}).get("calls", self.calls)

    def until(self, holds: Callable[[], object]) -> None:
        end_s = time.monotonic() + 60
        while not holds():
            if time.monotonic() > end_s:
                raise RuntimeError(f"The page was not told in a minute: {self.calls} calls.")
            time.sleep(0.0005)


@contextmanager
def listening(page: _Page) -> Iterator[None]:
    """Have a page listen, with ten updates a second."""
    import comm

    made, comm.create_comm = comm.create_comm, lambda **_: None  # type: ignore[assignment]
    bridge = Bridge(page, get_client, "bench")
    bridge.open()
    comm.create_comm = made
    hello = {"v": 1, "type": "hello", "front": "0", "app": "bench", "notebook": "a.ipynb", "updates_per_s": 10}
    page.targets["nbllm"](page, {"content": {"data": hello}, "header": {"session": "s"}})
    try:
        yield
    finally:
        page.left({})
        while any(thread.name == "nbllm-lab" for thread in threading.enumerate()):
            time.sleep(0.01)
        bridge.close()


def beside(work: Callable[[], float]) -> tuple[float, float]:
    """Return the median of some work without and with a listening page, turn by turn, so that both meet the same machine."""
    without, with_page = [], []
    work()
    for _ in range(ROUNDS):
        without.append(work())
        page = _Page()
        with listening(page):
            page.until(lambda page=page: page.sent)  # type: ignore[misc]
            with_page.append(work())
    return median(without), median(with_page)


def lab(base_url: str, home: Path) -> list[Row]:
    """Added to a hit and to an uncached call; messages and memory; a page that is opened on a million calls."""
    with client_for(base_url, home / "lab") as client:
        set_process_client(client)
        client.ask("Say something")
        hit = beside(lambda: per_call_s(lambda: client.ask("Say something"), 2000))
        uncached = beside(lambda: per_call_s(lambda: client.ask(new_prompt(), cache="off"), 400))
        cpu = beside(lambda: asyncio.run(_cpu_s(client)))
        rows = [
            _added("a listening page, added to a hit", "5 us", hit, hit[1] - hit[0] <= 5e-6),
            _added("a listening page, added to an uncached call, c=1", "2%", uncached, uncached[1] <= uncached[0] * 1.02),
            _added("a listening page, CPU added to a call of 64 callers", "reported", cpu, None),
            *_messages(client),
        ]
        set_process_client(None)
    return [*rows, _crowd(home / "crowd"), _large(home / "large")]


def _added(what: str, target: str, took: tuple[float, float], ok: bool | None) -> Row:
    without, with_page = took
    measured = f"{(with_page - without) * 1e6:+.1f} us ({with_page / without - 1:+.1%})"
    return Row(what, target, measured, f"without: {without * 1e6:.1f} us", ok)


async def _cpu_s(client: Client) -> float:
    """The processor seconds of one of many calls at once."""
    count, began_s = 1_920, time.process_time()  # long enough for several updates of the page

    async def caller() -> None:
        for _ in range(count // 64):
            await client.aask(new_prompt(), cache="off")

    await asyncio.gather(*(caller() for _ in range(64)))
    return (time.process_time() - began_s) / count


def _crowd(home: Path) -> Row:
    """2,000 different questions at once, to a model that answers at once: what a look at all of them costs, ten times a second."""

    async def crowd(client: Client) -> float:
        count, began_s = 2_000, time.process_time()
        await asyncio.gather(*(client.aask(new_prompt()) for _ in range(count)))
        return (time.process_time() - began_s) / count

    with Client(home=home, providers={"simulated": FakeProvider()}, model="sim/small") as client:
        set_process_client(client)
        client.ask("Say hi")
        took = beside(lambda: asyncio.run(crowd(client)))
        set_process_client(None)
    return _added("a listening page, CPU added to a call of 2,000 at once", "reported", took, None)


def _messages(client: Client) -> list[Row]:
    """Messages a second and their size over 10,000 hits, with 200 rows in the page; and what they leave in memory."""
    page = _Page()
    with listening(page):
        page.until(lambda: page.calls > 0)
        asked = page.calls

        def hits(count: int) -> None:
            nonlocal asked
            for _ in range(count):
                client.ask("Say something")
            asked += count
            page.until(lambda: page.calls == asked)
            gc.collect()

        hits(2_000)
        page.sent.clear()
        began_s = time.monotonic()
        hits(10_000)
        took_s = time.monotonic() - began_s
        sizes = [size for _, size, _ in page.sent]
        per_s = len(sizes) / took_s
        tracemalloc.start()
        hits(9_000)  # the ledger's own memory of its newest rows is full
        before = tracemalloc.get_traced_memory()[0]
        hits(10_000)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    small = per_s <= 10.5 and sum(sizes) / took_s < 0.2e6
    said = f"{per_s:.1f}/s, median {median(sizes) / 1e3:.0f} kB, largest {max(sizes) / 1e3:.0f} kB"
    return [
        Row("messages to a page over 10,000 hits", "10/s, 0.2 MB/s", said, "200 rows in the page", small),
        Row("memory with a listening page, 10,000 calls", "flat", f"{grown / 1e6:+.2f} MB", "", grown < 1e6),
    ]


def _large(home: Path) -> Row:
    """How soon a page that is opened beside a ledger of a million calls shows its session and this day."""
    fill_ledger(home, ROWS)
    with Client(home=home, model="sim/small") as client:
        set_process_client(client)
        client.ask("Say hi")
        page = _Page()
        began_s = time.monotonic()
        with listening(page):
            page.until(lambda: page.calls == 1)
            shown_s = time.monotonic() - began_s
            page.until(lambda: page.last["today"]["calls"])
            today_s = time.monotonic() - began_s
        set_process_client(None)
    said = f"session {shown_s:.2f} s, today's total {today_s:.2f} s"
    return Row(f"a page opened beside {ROWS:,} calls", "1 s", said, "read in worker threads", shown_s <= 1)
