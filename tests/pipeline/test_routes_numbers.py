"""Routes that go by numbers: cheapest, fastest, and who has room under its limits."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.ports import RateLimits
from nbllm.core.pricing import Price
from nbllm.testing import Script, run_virtual
from tests.pipeline.making import rung
from tests.pipeline.routing import (
    CHEAPEST,
    FASTEST,
    LARGE,
    SMALL,
    SPILL,
    TASK,
    world,
)


def test_the_cheapest_healthy_model_answers() -> None:
    """By price; when its breaker opens, the next one; the reason tells."""

    async def run() -> None:
        there = world({"r": {**CHEAPEST, "models": [LARGE, SMALL]}})
        there.rungs = {LARGE: replace(rung("large"), price=Price(Decimal(9), Decimal(9)))}
        assert (await there.ask("a", "r")).rung == SMALL
        there.providers["small"]._default = errors.ServerFailed
        for n in range(3):
            await there.ask(f"b{n}", "r")
        sent = there.providers["small"].calls
        reply = await there.ask("c", "r")
        assert (reply.rung, there.providers["small"].calls) == (LARGE, sent)
        assert "small/m rests" in reply.why.reason
        await there.close()

    run_virtual(run())


def test_the_fastest_goes_by_what_the_ledger_has_seen() -> None:
    """Each model is measured first; then the one with the lower median answers, and a change is noticed as calls end."""

    async def run() -> None:
        there = world(
            {"r": {**FASTEST, "min_calls": 2}},
            small=Script(pieces=["s"], first_after_s=3),
            large=Script(pieces=["l"], first_after_s=1),
        )
        chosen = [(await there.ask(f"q{n}", "r")).rung for n in range(6)]
        assert chosen == [SMALL, SMALL, LARGE, LARGE, LARGE, LARGE]
        there.providers["large"]._default = Script(pieces=["l"], first_after_s=9)
        chosen = [(await there.ask(f"p{n}", "r")).rung for n in range(8)]
        assert chosen[-1] == SMALL
        await there.close()
        later = world({"r": FASTEST}, ledger=there.ledger)
        assert (await later.ask("x", "r")).rung == SMALL
        await later.close()

    run_virtual(run())


def test_a_full_endpoint_spills_over() -> None:
    """What does not fit under an endpoint's limits goes to the next one at once, without waiting; told by headers too."""

    async def run() -> None:
        there = world({"r": SPILL}, endpoints={"small": {"rpm": 2}})
        began_s = there.clock.now_s()
        replies = [await there.ask(f"q{n}", "r") for n in range(4)]
        assert [r.rung for r in replies] == [SMALL, SMALL, LARGE, LARGE]
        assert replies[2].why.reason == "route r: spilled over: small/m at the rate limit"
        assert there.clock.now_s() == began_s
        await asyncio.sleep(62)
        assert (await there.ask("later", "r")).rung == SMALL
        await there.close()
        limits = RateLimits(requests_limit=10, requests_left=0, requests_reset_s=30.0)
        told = world({"r": SPILL}, small=Script(pieces=["s"], limits=limits))
        assert [(await told.ask(f"q{n}", "r")).rung for n in range(2)] == [SMALL, LARGE]
        await told.close()

    run_virtual(run())


def test_all_slots_taken_spill_over() -> None:
    """max_concurrency counts: a second call at the same time goes to the next endpoint."""

    async def run() -> None:
        there = world({"r": SPILL}, endpoints={"small": {"max_concurrency": 1}}, small=Script(pieces=["s"], first_after_s=1))
        first = there.start("a", "r")
        await asyncio.sleep(0.5)
        assert (await there.ask("b", "r")).rung == LARGE
        assert (await first).rung == SMALL
        await there.close()

    run_virtual(run())


def test_a_burst_spills_over_too() -> None:
    """Calls that all saw the same room do not queue up for it: those that find it gone go to the next endpoint at once."""

    async def run() -> None:
        there = world({"r": SPILL, "by": {**TASK, "otherwise": "r"}}, endpoints={"small": {"rpm": 3}})
        began_s = there.clock.now_s()
        replies = await asyncio.gather(*(there.ask(f"q{n}", "r" if n % 2 else "by") for n in range(20)))
        assert sorted(r.rung for r in replies) == [LARGE] * 17 + [SMALL] * 3
        assert there.clock.now_s() == began_s
        await there.close()
        full = world({"r": SPILL}, endpoints={"small": {"rpm": 1}, "large": {"rpm": 1}})
        replies = await asyncio.gather(*(full.ask(f"q{n}", "r") for n in range(3)))
        assert len({r.call_id for r in replies}) == 3
        await full.close()

    run_virtual(run())


def test_a_ledger_that_cannot_be_read_is_no_reason_not_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Routes by numbers go on with what this process has seen."""

    async def run() -> None:
        there = world({"r": FASTEST})

        def broken(limit: int) -> Any:
            raise OSError("no disk")

        there.ledger.newest_answers = broken  # type: ignore[method-assign]
        assert (await there.ask("q", "r")).rung == SMALL
        await there.close()

    run_virtual(run())
    assert "could not be read" in caplog.text
