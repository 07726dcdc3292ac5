"""coalesce in one process: who joins whom, and each gets the whole stream and data of its own type."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Delta, ToolCallFragment
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import SLOW, X_SCHEMA, Even, Watcher, slow
from tests.pipeline.world import World

# ---------------------------------------------------------------------------------------------------- one run for many


def test_peer_bug_500_identical_calls_make_one_request() -> None:
    """500 identical calls at once: one request, one attempt row, one cost; the other 499 rows say coalesced, cost 0."""

    async def run() -> None:
        world = World(FakeProvider(slow()))
        replies = await asyncio.gather(*(world.ask("q") for _ in range(500)))
        assert world.provider.calls == 1
        assert {reply.text for reply in replies} == {"an answer"}
        assert sum(reply.coalesced for reply in replies) == 499
        assert len(world.ledger.attempts_by_id) == 1
        rows = world.ledger.calls_by_id.values()
        assert sum(row.coalesced for row in rows) == 499
        assert {row.status for row in rows} == {AttemptStatus.DONE}
        paid = [reply.cost_usd for reply in replies if reply.cost_usd]
        assert paid == [world.spent()]
        assert {reply.cost_usd for reply in replies if reply.coalesced} == {Decimal(0)}
        assert len({reply.call_id for reply in replies}) == 500
        await world.close()

    run_virtual(run())


def test_all_get_the_stream_and_late_joiners_what_came() -> None:
    """Every watcher sees every piece; who joins in mid-stream first gets what came so far in one piece, then the rest."""

    async def run() -> None:
        world = World(FakeProvider(SLOW))
        early, same, late = Watcher(), Watcher(), Watcher()
        calls = [world.start("q", watched=True, sink=early), world.start("q", watched=True, sink=same)]
        await asyncio.sleep(2.5)
        calls.append(world.start("q", watched=True, sink=late))
        replies = await asyncio.gather(*calls)
        assert early.events == same.events == ["started", "one ", "two ", "three"]
        assert late.events == ["started", "one two ", "three"]
        assert {reply.text for reply in replies} == {"one two three"}
        await world.close()

    run_virtual(run())


def test_late_joiners_get_reasoning_and_tool_calls_too() -> None:
    """Nothing of what came is lost on who joins late."""

    async def run() -> None:
        pieces = [Delta(reasoning="hm"), Delta(tool_call=ToolCallFragment(0, "c1", "f", "{}")), Delta(text="x")]
        world = World(FakeProvider(Script(pieces=pieces, gap_s=1, first_after_s=1)))
        first = world.start("q", watched=True)
        await asyncio.sleep(2.5)
        late = Watcher()
        await world.ask("q", watched=True, sink=late)
        await first
        assert late.events[1:] == [Delta(reasoning="hm"), Delta(tool_call=pieces[1].tool_call), "x"]
        await world.close()

    run_virtual(run())


def test_a_restart_reaches_every_watcher() -> None:
    """When the run begins anew, all who watch are told, and who joins afterwards gets only what came since."""

    async def run() -> None:
        broken = Script(pieces=["half"], first_after_s=1, then=errors.StreamInterrupted)
        world = World(FakeProvider(broken, Script(pieces=["who", "le"], first_after_s=1, gap_s=1)))
        a, b, late = Watcher(), Watcher(), Watcher()
        calls = [world.start("q", watched=True, sink=a), world.start("q", watched=True, sink=b)]
        await asyncio.sleep(2.6)
        calls.append(world.start("q", watched=True, sink=late))
        await asyncio.gather(*calls)
        assert a.events == b.events == ["started", "half", "restarted: interrupted", "started", "who", "le"]
        assert late.events == ["started", "who", "le"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    ("first", "second", "runs"),
    [
        ({}, {}, 1),
        ({"cache": "refresh"}, {"cache": "refresh"}, 1),
        ({}, {"cache": "refresh"}, 2),
        ({"cache": "refresh"}, {}, 2),
        ({}, {"cache": "off"}, 2),
        ({"cache": "off"}, {}, 2),
        ({"cache": "off"}, {"cache": "off"}, 2),
        ({}, {"temperature": 0.5}, 2),
        ({}, {"partition": "other"}, 2),
        ({}, {"sample": 1}, 2),
        ({}, {"deadline_s": 7.0, "feature": "f", "user": "u", "retries": 0, "ttl_s": 5.0, "budget_usd": Decimal(1)}, 1),
    ],
)
def test_who_joins_whom(first: dict[str, Any], second: dict[str, Any], runs: int) -> None:
    """Calls join on the same key; off neither joins nor leads, a refresh joins only refreshes."""

    async def run() -> None:
        world = World(FakeProvider(default=slow()))
        replies = await asyncio.gather(world.ask("q", **first), world.ask("q", **second))
        assert world.provider.calls == runs
        assert [reply.coalesced for reply in replies] == [False, runs == 1]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(("cache", "answer"), [("use", "of the use"), ("refresh", "of the refresh")])
def test_a_refresh_beside_a_use_gets_an_answer_of_its_own(cache: str, answer: str) -> None:
    """A refresh that comes while the same question is being asked anyway still asks anew."""

    async def run() -> None:
        world = World(FakeProvider(slow("of the use"), slow("of the refresh")))
        use, refresh = await asyncio.gather(world.ask("q"), world.ask("q", cache="refresh"))
        assert (use.text if cache == "use" else refresh.text) == answer
        await world.close()

    run_virtual(run())


def test_checks_join_only_on_the_same_object() -> None:
    """Two calls share a run when they bring the very same check, or none; equal code is not the same check."""

    async def run() -> None:
        def check(_: object) -> bool:
            return True

        world = World(FakeProvider(default=slow()))
        await asyncio.gather(world.ask("q", check=check), world.ask("q", check=check))
        assert world.provider.calls == 1
        checks: list[Callable[[object], bool]] = [lambda _: True, lambda _: True]
        await asyncio.gather(*(world.ask("r", check=each) for each in checks), world.ask("r"))
        assert world.provider.calls == 4
        await world.close()

    run_virtual(run())


def test_no_run_is_joined_after_it_landed() -> None:
    """A call that comes when the answer is being handed out finds it in the cache or asks anew; it is never left waiting."""

    async def run() -> None:
        world = World(FakeProvider(default=slow("x", 1.0)))
        late: list[asyncio.Task[Reply]] = []

        class AtTheEnd(Watcher):
            def delta(self, delta: Delta) -> None:
                asyncio.get_running_loop().call_soon(lambda: late.append(world.start("q")))

        await world.ask("q", sink=AtTheEnd())
        assert (await late[0]).text == "x"
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- schemas


def test_a_joiner_gets_data_of_its_own_type() -> None:
    """Joined calls with the same JSON Schema each get `.data` of their own class."""

    async def run() -> None:
        def define() -> type:
            @dataclass
            class Point:
                x: int

            return Point

        types = [define() for _ in range(3)]
        world = World(FakeProvider(slow('{"x": 1}')))
        replies = await asyncio.gather(*(world.ask("q", json_schema=X_SCHEMA, schema_type=each) for each in types))
        assert world.provider.calls == 1
        for reply, each in zip(replies, types, strict=True):
            assert type(reply.data) is each
        await world.close()

    run_virtual(run())


def test_who_takes_over_gets_data_of_its_own_type_too() -> None:
    """The next in line, when the leader left, gets `.data` of its own class, not of the leader's."""

    async def run() -> None:
        @dataclass
        class Mine:
            x: int

        world = World(FakeProvider(slow('{"x": 1}')))
        leader = world.start("q", json_schema=X_SCHEMA, schema_type=X_SCHEMA)
        await asyncio.sleep(0.5)
        second = world.start("q", json_schema=X_SCHEMA, schema_type=Mine)
        await asyncio.sleep(0.5)
        leader.cancel()
        assert (await second).data == Mine(1)
        await world.close()

    run_virtual(run())


def test_a_joiner_whose_own_type_refuses_runs_for_itself() -> None:
    """A shared answer that fails a joiner's own type is not good enough for it: the watcher is told, and it asks for itself."""

    async def run() -> None:
        world = World(FakeProvider(slow('{"x": 1}'), '{"x": 2}'))
        watcher = Watcher()
        plain, even = await asyncio.gather(
            world.ask("q", json_schema=X_SCHEMA, schema_type=X_SCHEMA),
            world.ask("q", json_schema=X_SCHEMA, schema_type=Even, sink=watcher),
        )
        assert plain.data == {"x": 1}
        assert even.data == Even(2)
        assert not even.coalesced
        assert even.cost_usd
        assert "restarted: rejected" in watcher.events
        await world.close()

    run_virtual(run())
