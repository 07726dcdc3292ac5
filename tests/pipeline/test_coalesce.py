"""coalesce in one process: one run for many, and each waiter on its own."""

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
from tests.pipeline.making import Watcher
from tests.pipeline.world import World, now_s, outcome

SLOW = Script(pieces=["one ", "two ", "three"], first_after_s=1, gap_s=1)


def slow(text: str = "an answer", takes_s: float = 2.0) -> Script:
    return Script(pieces=[text], first_after_s=takes_s)


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
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider(slow('{"x": 1}')))
        replies = await asyncio.gather(*(world.ask("q", json_schema=schema, schema_type=each) for each in types))
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

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider(slow('{"x": 1}')))
        leader = world.start("q", json_schema=schema, schema_type=schema)
        await asyncio.sleep(0.5)
        second = world.start("q", json_schema=schema, schema_type=Mine)
        await asyncio.sleep(0.5)
        leader.cancel()
        assert (await second).data == Mine(1)
        await world.close()

    run_virtual(run())


def test_a_joiner_whose_own_type_refuses_runs_for_itself() -> None:
    """A shared answer that fails a joiner's own type is not good enough for it: the watcher is told, and it asks for itself."""

    async def run() -> None:
        @dataclass
        class Even:
            x: int

            def __post_init__(self) -> None:
                if self.x % 2:
                    raise ValueError("odd")

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider(slow('{"x": 1}'), '{"x": 2}'))
        watcher = Watcher()
        plain, even = await asyncio.gather(
            world.ask("q", json_schema=schema, schema_type=schema),
            world.ask("q", json_schema=schema, schema_type=Even, sink=watcher),
        )
        assert plain.data == {"x": 1}
        assert even.data == Even(2)
        assert not even.coalesced
        assert even.cost_usd
        assert "restarted: rejected" in watcher.events
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- waiters leave


def test_a_waiters_deadline_ends_only_that_waiter() -> None:
    """Whoever is late gets DeadlineExceeded on time; the run and the others go on."""

    async def run() -> None:
        world = World(FakeProvider(slow(takes_s=5)))
        began = now_s()
        calls = [world.start("q", deadline_s=d) for d in (1, 60, 2)]
        assert isinstance(await outcome(calls[0]), errors.DeadlineExceeded)
        assert isinstance(await outcome(calls[2]), errors.DeadlineExceeded)
        assert now_s() - began <= 2.1
        assert (await calls[1]).text == "an answer"
        assert (world.provider.calls, world.provider.cancelled) == (1, 0)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("who", [0, 1, 2])
def test_a_cancelled_waiter_ends_only_itself(who: int) -> None:
    """Cancel any one of three, the leader too: the others get the answer of the one request."""

    async def run() -> None:
        world = World(FakeProvider(SLOW))
        calls = [world.start("q", watched=True) for _ in range(3)]
        await asyncio.sleep(1.5)
        calls[who].cancel()
        results = [await outcome(call) for call in calls]
        assert isinstance(results[who], asyncio.CancelledError)
        assert [r.text for r in results if isinstance(r, Reply)] == ["one two three"] * 2
        assert (world.provider.calls, world.provider.cancelled) == (1, 0)
        await world.close()

    run_virtual(run())


def test_a_leader_cancelled_in_mid_stream_is_billed_and_nobody_else() -> None:
    """The request was made on the leader's row: it is booked there, once, with its whole cost; who takes over pays nothing."""

    async def run() -> None:
        world = World(FakeProvider(SLOW))
        leader = world.start("q", watched=True, feature="a")
        await asyncio.sleep(0.5)
        second = world.start("q", watched=True, feature="b")
        await asyncio.sleep(1)
        leader.cancel()
        reply = await second
        assert isinstance(await outcome(leader), asyncio.CancelledError)
        assert (reply.text, reply.cost_usd, reply.attempts, reply.coalesced) == ("one two three", 0, (), True)
        (attempt,) = world.ledger.attempts_by_id.values()
        rows = list(world.ledger.calls_by_id.values())
        assert attempt.call_id == rows[0].call_id
        assert attempt.status is AttemptStatus.DONE
        assert [row.status for row in rows] == [AttemptStatus.CANCELLED, AttemptStatus.DONE]
        assert attempt.cost_usd == world.spent() == world.spent("feature:a")
        assert world.spent("feature:b") == 0
        assert (await world.ask("q")).saved_usd == attempt.cost_usd
        await world.close()

    run_virtual(run())


def test_what_is_sent_after_the_leader_left_is_paid_by_the_next() -> None:
    """A retry after the leader is gone is made on the row, and with the budgets, of who leads then."""

    async def run() -> None:
        failing = Script(first_after_s=1, then=errors.ServerFailed("no", status=500))
        world = World(FakeProvider(failing, slow(takes_s=1)))
        leader = world.start("q", feature="a")
        await asyncio.sleep(0.2)
        second = world.start("q", feature="b")
        await asyncio.sleep(0.3)
        leader.cancel()
        reply = await second
        first, retry = world.ledger.attempts_by_id.values()
        rows = list(world.ledger.calls_by_id)
        assert [first.call_id, retry.call_id] == rows
        assert [a.attempt_id for a in reply.attempts] == [retry.attempt_id]
        assert reply.cost_usd == retry.cost_usd == world.spent("feature:b")
        assert world.spent("feature:a") == 0
        await world.close()

    run_virtual(run())


def test_the_last_waiter_that_leaves_ends_the_run() -> None:
    """With nobody left the request is cancelled upstream at once, its row closed as cancelled, nothing stays reserved."""

    async def run() -> None:
        world = World(FakeProvider(SLOW), settings={"budget_session_usd": "5"})
        calls = [world.start("q", watched=True) for _ in range(3)]
        await asyncio.sleep(1.5)
        began = now_s()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert now_s() == began
        assert world.provider.cancelled == 1
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.status, attempt.cost_basis) == (AttemptStatus.CANCELLED, "estimated")
        assert attempt.cost_usd == world.spent() > 0
        assert world.reserved() == {}
        await world.close()

    run_virtual(run())


def test_a_provider_that_is_slow_to_let_go_holds_nobody_up() -> None:
    """A run that takes its time to end is waited for a moment; its row is closed all the same, later."""

    async def run() -> None:
        class Clinging(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Any:
                try:
                    return await super().send(wire, progress)
                finally:
                    await asyncio.sleep(5)

        world = World(Clinging(Script(hang=True)))
        began = now_s()
        assert isinstance(await outcome(world.ask("q", deadline_s=1)), errors.DeadlineExceeded)
        assert now_s() - began <= 1.1
        await asyncio.sleep(10)
        await world.close()

    run_virtual(run())


def test_who_comes_while_a_run_is_ending_gets_a_run_of_its_own() -> None:
    """A call that comes just after the last waiter left is not joined to the dying run."""

    async def run() -> None:
        world = World(FakeProvider(Script(hang=True), "fresh"))
        first = world.start("q")
        await asyncio.sleep(1)
        first.cancel()
        second = world.start("q")
        assert (await second).text == "fresh"
        assert isinstance(await outcome(first), asyncio.CancelledError)
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- budgets


def test_a_budget_refusal_ends_only_that_waiter() -> None:
    """When the leader's own budget refuses, the next leads with its own; the leader alone gets BudgetExceeded."""

    async def run() -> None:
        world = World(FakeProvider(default=slow()))
        poor = [world.start("q", budget_usd=Decimal("0.000001")) for _ in range(2)]
        rich = [world.start("q") for _ in range(3)]
        for call in poor:
            assert isinstance(await outcome(call), errors.BudgetExceeded)
        assert [(await call).text for call in rich] == ["an answer"] * 3
        assert world.provider.calls == 1
        assert [(await call).coalesced for call in rich] == [False, True, True]
        await world.close()

    run_virtual(run())


def test_a_joiners_empty_budget_does_not_matter_to_it() -> None:
    """Who joins pays nothing, so a budget too small for the request refuses nothing."""

    async def run() -> None:
        world = World(FakeProvider(slow()))
        _, joined = await asyncio.gather(world.ask("q"), world.ask("q", budget_usd=Decimal("0.000001")))
        assert (joined.text, joined.cost_usd) == ("an answer", 0)
        await world.close()

    run_virtual(run())


def test_nobody_is_refused_for_a_budget_that_left() -> None:
    """A leader leaves while its budget is being asked: its refusal does not reach those who stayed."""

    async def run() -> None:
        from nbllm.storage.memory import MemoryBudgets

        class Slow(MemoryBudgets):
            async def reserve(self, *args: Any) -> Any:
                await asyncio.sleep(1)
                return await super().reserve(*args)

        world = World(FakeProvider(default="fine"), budgets=Slow())
        leader = world.start("q", budget_usd=Decimal("0.000001"))
        others = [world.start("q", budget_usd=Decimal(1)), world.start("q")]
        await asyncio.sleep(0.5)
        leader.cancel()
        assert [(await call).text for call in others] == ["fine"] * 2
        await world.close()

    run_virtual(run())


def test_every_budget_refuses() -> None:
    """When each waiter's own budget refuses, each gets its own BudgetExceeded, and nothing is sent."""

    async def run() -> None:
        world = World()
        limits = [Decimal(f"0.00000{n}") for n in range(1, 6)]
        results = await asyncio.gather(*(outcome(world.ask("q", budget_usd=limit)) for limit in limits))
        assert [r.limit_usd for r in results if isinstance(r, errors.BudgetExceeded)] == limits
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- errors


class Picky(Exception):
    """An error that cannot be copied by its args."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("error", [errors.BadParameter("no", parameter="top_p"), Picky(1, 2), KeyError("x"), RuntimeError("bug")])
def test_every_waiter_gets_the_error(error: Exception) -> None:
    """An error reaches each waiter, whatever its class, those that cannot be copied too; nobody is left waiting."""

    async def run() -> None:
        world = World(FakeProvider(Script(first_after_s=1, then=error)))
        results = await asyncio.gather(*(outcome(world.ask("q", retries=0)) for _ in range(4)))
        assert [type(r) for r in results] == [type(error)] * 4
        assert [str(r) for r in results] == [str(error)] * 4
        await world.close()

    run_virtual(run())


def test_errors_are_not_shared_objects() -> None:
    """Each waiter's error is its own: call_id, cost, notes and partial of one do not show on another's."""

    async def run() -> None:
        cause = OSError("reset")
        failure = errors.BadParameter("no", status=400, parameter="top_p")
        failure.__cause__ = cause
        world = World(FakeProvider(Script(first_after_s=1, then=failure)))
        results = await asyncio.gather(*(outcome(world.ask("q")) for _ in range(3)))
        assert len({id(r) for r in results}) == 3
        found = [r for r in results if isinstance(r, errors.BadParameter)]
        assert len({r.call_id for r in found}) == 3
        assert all(r.parameter == "top_p" and r.status == 400 and r.__cause__ is cause for r in found)
        found[0].add_note("only mine")
        assert [getattr(r, "__notes__", []) for r in found[1:]] == [[], []]
        await world.close()

    run_virtual(run())


def test_an_error_says_where_it_was_raised() -> None:
    """The traceback of a bug below reaches the caller, though the run was a task of its own."""

    async def run() -> None:
        import traceback

        def bug(_: object) -> str:
            raise ZeroDivisionError

        world = World(FakeProvider(default=bug))
        for result in await asyncio.gather(*(outcome(world.ask("q")) for _ in range(2))):
            assert isinstance(result, ZeroDivisionError)
            assert "in bug" in "".join(traceback.format_exception(result))
        await world.close()

    run_virtual(run())


def test_partial_text_of_an_earlier_rung_stays_with_its_call() -> None:
    """Who joins a run gets the partial text of that run, not what the leader had received from another model before."""

    async def run() -> None:
        one = FakeProvider(Script(pieces=["leader's own"], then=errors.StreamInterrupted))
        two = FakeProvider(Script(end_after_s=5, then=errors.BadParameter))
        world = World(providers={"one": one, "two": two})
        leader = world.start("q", "one/m", "two/m", watched=True, retries=0)
        await asyncio.sleep(1)
        joined = await outcome(world.ask("q", "two/m", watched=True))
        assert isinstance(joined, errors.BadParameter)
        assert joined.partial is None
        assert isinstance(await outcome(leader), errors.BadParameter)
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("cache", ["use", "off"])
def test_closing_ends_every_call(cache: str) -> None:
    """aclose() cancels what is in flight, shared or not: every caller is told, every row closed, nothing reserved or left."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(hang=True)), settings={"budget_session_usd": "5"})
        calls = [world.start(f"q{n % 2}", cache=cache) for n in range(4)]
        await asyncio.sleep(1)
        await world.close()
        for call in calls:
            assert isinstance(await outcome(call), asyncio.CancelledError)
        assert {row.status for row in world.ledger.calls_by_id.values()} == {AttemptStatus.CANCELLED}

    run_virtual(run())
