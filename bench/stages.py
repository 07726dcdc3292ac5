"""Where an uncached call spends its processor time: the road built up stage by stage, each step measured beside the others.

All in one process and by turns, 64 callers each; what a step takes is what it adds to the step before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.calls import BODY, client_for, new_prompt
from bench.crowd import CALLERS, TARGET, rate
from bench.measure import Row
from nbllm import Client
from nbllm.asking import chat_request
from nbllm.core.messages import Delta, NullSink, Request, Usage
from nbllm.core.ports import Balance, RateLimits, Wire
from nbllm.house import House
from nbllm.pipeline.attempt import AttemptStage
from nbllm.pipeline.breaker import BreakerStage
from nbllm.pipeline.budget import BudgetStage
from nbllm.pipeline.retry import RetryStage
from nbllm.pipeline.stage import Clock
from nbllm.pipeline.throttle import ThrottleStage
from nbllm.providers.wire import request_bytes

Ways = dict[str, Callable[[], Awaitable[Any]]]
_CALLS, _ROUNDS = 5 * CALLERS, 40


class _Nobody:
    """A Progress that nobody follows."""

    def sent(self) -> None:
        """Ignore it."""

    def limits(self, limits: RateLimits) -> None:
        """Ignore it."""

    def delta(self, delta: Delta) -> None:
        """Ignore it."""

    def usage(self, usage: Usage) -> None:
        """Ignore it."""


def stages(base_url: str, home: Path) -> list[Row]:
    """One row that says what each step adds."""
    found = asyncio.run(_measured(base_url, home))
    before, parts = 0.0, []
    for name, cpu_us in found.items():
        parts.append(f"{name} {cpu_us - before:.0f}")
        before = cpu_us
    raw_us = next(iter(found.values()))
    beside = f"{TARGET}: {raw_us / 0.4:.0f} us for everything"
    return [Row("where a call of 64 spends its processor time", "reported", f"us: {'; '.join(parts)}", beside, None)]


async def _measured(base_url: str, home: Path) -> dict[str, float]:
    """Return the microseconds of processor time of a call of each way, the best of several rounds by turns."""
    import aiohttp

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as session,
        client_for(base_url, home / "stages-bare") as bare,
        client_for(base_url, home / "stages-lent") as lent,
        client_for(base_url, home / "stages-own") as own,
    ):
        bare.adopt_loop()
        lent.adopt_loop()

        async def raw() -> None:
            async with session.post(f"{base_url}/chat/completions", json=BODY) as response:
                await response.json()

        ways: Ways = {
            "aiohttp": raw,
            **await _inside(bare),
            "door (options, request, reply)": lambda: bare.aask(new_prompt(), cache="off"),
            "SQLite (rows before and after, bookings)": lambda: lent.aask(new_prompt(), cache="off"),
            "background loop": lambda: own.aask(new_prompt(), cache="off"),
        }
        best: dict[str, float] = {}
        for _ in range(_ROUNDS):
            for name, call in ways.items():
                cpu_us = (await rate(call, _CALLS)).cpu_s * 1e6
                best[name] = min(best.get(name, cpu_us), cpu_us)
    return best


async def _inside(client: Client) -> Ways:
    """Return the ways into the road of a client that writes nothing down, from the wire outwards."""
    await client.aask(new_prompt(), cache="off")
    house = client._open_house()  # noqa: SLF001 - the stages are no public door
    _write_nothing(house)
    settings, road, clock = (lambda: client.settings), house.road, Clock()
    rung = house.catalog.rung("b/bench")
    provider = house.pool.get(rung)

    def opened() -> Request:
        request = chat_request(new_prompt(), {"cache": "off"}, client.settings, watched=False, on_interrupt="restart")
        return road.open(request)

    attempt = AttemptStage(lambda _: provider, house.storage.ledger, clock, road.throttles.learn, settings)
    budget = BudgetStage(attempt, house.storage.budgets, lambda: client.settings.budgets, request_bytes, clock)
    throttle = ThrottleStage(BreakerStage(budget, road.breakers), road.throttles, road.breakers, clock)
    retry = RetryStage(throttle, clock, settings)
    example, progress = opened(), _Nobody()
    return {
        "wire": lambda: provider.send(Wire(rung=rung, content=example.content, streamed=False), progress),
        "attempt": lambda: attempt(_again(example, road.open).on(rung, rungs_left=1), NullSink()),
        "budget, breaker, throttle, retry": lambda: retry(_again(example, road.open).on(rung, rungs_left=1), NullSink()),
        "structure ... ladder, route, deadline, record": lambda: house.call(_again(example, road.open), NullSink()),
    }


def _again(example: Request, opened: Callable[[Request], Request]) -> Request:
    """Return the same request as a call of its own."""
    return opened(Request(content=example.content, options=example.options))


def _write_nothing(house: House) -> None:
    """Have the ledger and the budgets of a house do nothing."""
    ledger: Any = house.storage.ledger
    for name in ("open_call", "close_call", "open_attempt", "close_attempt"):
        setattr(ledger, name, lambda _: None)

    async def settled(*_: object) -> dict[str, Balance]:
        return {}

    budgets: Any = house.storage.budgets
    budgets.settle = settled
