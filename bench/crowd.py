"""64 callers in one process: calls a second, and processor time a call, which neighbours on the machine change less."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.calls import BODY, client_for, new_prompt
from bench.measure import Row, server

CALLERS = 64
TARGET = "3,000/s and 40% of aiohttp"
_CALLS, _PEER_CALLS, _ROUNDS = 4_000, 400, 3


class Rate(NamedTuple):
    """Calls a second, and the seconds of processor time that the client's process spent on one, all its threads together."""

    per_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.per_s:,.0f}/s (CPU {self.cpu_s * 1e6:,.0f} us a call)"


def canned(base_url: str, home: Path) -> list[Row]:
    """64 callers on canned bytes, which a server can hardly send faster."""
    return [_row("64 callers, one process", asyncio.run(_rates(base_url, home / "crowd-canned")))]


def usual(base_url: str, home: Path) -> list[Row]:
    """64 callers on a server as people write them."""
    del base_url
    with server("bench.usual_server") as usual_url:
        rates = asyncio.run(_rates(usual_url, home / "crowd-usual"))
    return [_row("64 callers, one process, a usual server", rates)]


def _row(what: str, rates: dict[str, Rate]) -> Row:
    ours, raw = rates["cache off"], rates["aiohttp"]
    share = ours.per_s / raw.per_s
    return Row(
        what,
        TARGET,
        f"{ours} = {share:.0%}, on a lent loop {rates['cache off, lent loop']}; misses that are coalesced and kept: "
        f"{rates['kept']}, on a lent loop {rates['kept, lent loop']}",
        f"aiohttp {raw}; litellm.Router {rates['Router']}",
        ours.per_s >= 3000 and share >= 0.4,
    )


async def _rates(base_url: str, home: Path) -> dict[str, Rate]:
    """Measure each way by turns, and return the best round of each: what else runs on the machine can only slow one down."""
    import aiohttp
    import litellm

    url = f"{base_url}/chat/completions"
    endpoint = {"model": "openai/bench", "api_base": base_url, "api_key": "x"}
    router = litellm.Router([{"model_name": "bench", "litellm_params": endpoint}])
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session,
        client_for(base_url, home / "own") as client,
        client_for(base_url, home / "lent") as lent,
    ):
        lent.adopt_loop()

        async def raw() -> None:
            async with session.post(url, json=BODY) as response:
                await response.json()

        ways: dict[str, tuple[Callable[[], Awaitable[Any]], int]] = {
            "aiohttp": (raw, _CALLS),
            "cache off": (lambda: client.aask(new_prompt(), cache="off"), _CALLS),
            "cache off, lent loop": (lambda: lent.aask(new_prompt(), cache="off"), _CALLS),
            "kept": (lambda: client.aask(new_prompt()), _CALLS),
            "kept, lent loop": (lambda: lent.aask(new_prompt()), _CALLS),
            "Router": (lambda: router.acompletion(**BODY), _PEER_CALLS),
        }
        best: dict[str, Rate] = {}
        for _ in range(_ROUNDS):
            for name, (call, count) in ways.items():
                found = await rate(call, count)
                best[name] = _better(best.get(name, found), found)
    return best


def _better(one: Rate, other: Rate) -> Rate:
    return Rate(max(one.per_s, other.per_s), min(one.cpu_s, other.cpu_s))


async def rate(call: Callable[[], Awaitable[Any]], count: int) -> Rate:
    """Return the rate of so many calls by 64 callers."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return Rate(count / (time.perf_counter() - began), (time.process_time() - cpu) / count)
