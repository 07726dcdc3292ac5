"""What other processes do in tests. In a file of its own, because a spawned process imports it by name."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nbllm import Client, errors
from tests.road.invariants import endpoint


def crowd(home: Path, base_url: str, queue: Any, ready: Any, *, callers: int, same: bool, values: dict[str, Any]) -> None:
    """Ask from many threads at once, and say how the calls ended: the source of a reply, or the name of an error."""
    with Client(home=home, endpoints={"lab": endpoint(base_url)}, model="lab/m", **values) as client:
        start = threading.Barrier(callers)

        def call(number: int) -> str:
            start.wait(60)
            try:
                reply = client.ask("hello" if same else f"hello {number} of {client.session}", cache="use" if same else "off")
            except errors.NbllmError as exc:
                return type(exc).__name__
            return f"{reply.source}{' coalesced' if reply.coalesced else ''}"

        ready.wait(60)
        with ThreadPoolExecutor(callers) as pool:
            ends = Counter(pool.map(call, range(callers)))
    queue.put(dict(ends))


def look_and_tell(homes: Sequence[Path], queue: Any, ready: Any) -> None:
    """Look at homes that other processes make at the same moment, one after another."""
    for home in homes:
        with Client(home=home, model="sim/small") as client:
            ready.wait(60)
            try:
                queue.put((len(client.usage()), client.store.stats().entries, len(client.budget_lines())))
            except errors.NbllmError as exc:
                queue.put(str(exc))


def ask_and_tell(client: Client, queue: Any, prompt: str) -> None:
    """Ask by every door in a child, and send home what came, or what went wrong."""

    async def streamed() -> str:
        return "".join([piece async for piece in client.astream(f"{prompt} astreamed")])

    try:
        texts = [
            client.ask(prompt).text,
            "".join(client.stream(f"{prompt} streamed")),
            asyncio.run(client.aask(f"{prompt} awaited")).text,
            asyncio.run(streamed()),
        ]
        client.close()
    except BaseException as exc:
        queue.put(f"{type(exc).__name__}: {exc}")
    else:
        queue.put(texts)


def new_client_and_tell(home: Path, base_url: str, queue: Any, prompt: str) -> None:
    """The same with a client of the child's own."""
    ask_and_tell(Client(home=home, endpoints={"lab": endpoint(base_url)}, model="lab/m"), queue, prompt)
