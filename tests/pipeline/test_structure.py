"""structure: validated or not delivered; repairs counted, capped, paid for and in time."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Delta, Ending, ToolCallFragment
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import World, now_s, outcome

INTEGER = {"type": "integer"}
ASK = {"json_schema": INTEGER, "schema_type": INTEGER}


def test_a_valid_answer_has_data() -> None:
    """`.data` is built from the text; the reply says that nothing was repaired and what repairing cost: nothing."""

    async def run() -> None:
        world = World(FakeProvider("7"))
        reply = await world.ask("q", **ASK)
        assert (reply.data, reply.text, reply.repairs, reply.repair_cost_usd) == (7, "7", 0, 0)
        await world.close()

    run_virtual(run())


def test_an_answer_that_fails_is_asked_for_again_with_the_error() -> None:
    """The second request shows the model its answer and what was wrong; attempts are marked, the cost of repairing is stated."""

    async def run() -> None:
        world = World(FakeProvider("seven", "7"))
        reply = await world.ask("q", **ASK)
        assert (reply.data, reply.repairs) == (7, 1)
        assert [a.purpose for a in reply.attempts] == ["answer", "repair"]
        assert reply.repair_cost_usd == reply.attempts[1].cost_usd
        assert reply.cost_usd == sum(a.cost_usd for a in reply.attempts if a.cost_usd is not None) == world.spent()
        messages = world.provider.requests[1].content.messages
        assert [m["role"] for m in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"] == "seven"
        assert "did not pass validation" in messages[2]["content"]
        assert "no JSON" in messages[2]["content"]
        (row,) = world.ledger.calls_by_id.values()
        assert row.repairs == 1
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_repairs_are_capped(repairs: int) -> None:
    """At most `repairs` more requests; then ValidationFailed with the last answer, its problem and what it all cost."""

    async def run() -> None:
        world = World(FakeProvider(default="never a number"))
        with pytest.raises(errors.ValidationFailed) as caught:
            await world.ask("q", **ASK, repairs=repairs)
        assert world.provider.calls == repairs + 1
        assert caught.value.text == "never a number"
        assert caught.value.problem
        assert caught.value.spent_usd == world.spent() > 0
        assert f"{repairs} repair" in str(caught.value)
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_a_repaired_answer_is_kept_under_the_question() -> None:
    """The answer of a repair is a hit for the original question; the hit says cost 0 and no repairs of its own."""

    async def run() -> None:
        world = World(FakeProvider("seven", "7"))
        await world.ask("q", **ASK)
        hit = await world.ask("q", **ASK)
        assert (hit.data, hit.source, hit.cost_usd, hit.repairs) == (7, "cache", 0, 0)
        await world.close()

    run_virtual(run())


def test_repairs_end_with_the_deadline() -> None:
    """Repairing is inside the deadline."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["no"], first_after_s=1)))
        began = now_s()
        assert isinstance(await outcome(world.ask("q", **ASK, deadline_s=2.5, repairs=20)), errors.DeadlineExceeded)
        assert now_s() - began <= 2.6
        assert world.provider.calls == 3
        await world.close()

    run_virtual(run())


def test_repairs_end_with_the_budget() -> None:
    """No repair escapes the budget: one that does not fit is refused, and the answer so far was not good enough."""

    async def run() -> None:
        world = World(FakeProvider(default="no"))
        worst = Decimal("0.0021")
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("q", **ASK, repairs=20, budget_usd=worst, max_tokens=1000)
        assert 1 <= world.provider.calls < 20
        assert world.spent() <= worst
        await world.close()

    run_virtual(run())


def test_each_repair_may_be_retried() -> None:
    """A repair is a request like any other: what fails on the wire is sent again."""

    async def run() -> None:
        world = World(FakeProvider("seven", errors.ServerFailed("no", status=500), "7"))
        reply = await world.ask("q", **ASK)
        assert reply.data == 7
        assert [a.purpose for a in reply.attempts] == ["answer", "repair", "repair"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("repairs", [0, 2])
def test_a_truncated_answer_is_not_repaired(repairs: int) -> None:
    """Asking again cannot help an answer that the limit on tokens cut; the error says to raise it."""

    async def run() -> None:
        class Cut(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                ending = await super().send(wire, progress)
                return Ending(finish_reason="length", usage=ending.usage)

        world = World(Cut(default="[1, 2"))
        schema = {"type": "array"}
        with pytest.raises(errors.ValidationFailed, match="cut by the limit") as caught:
            await world.ask("q", json_schema=schema, schema_type=schema, repairs=repairs)
        assert world.provider.calls == 1
        assert "max_tokens" in caught.value.hint
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- what a watcher sees


def test_text_is_held_until_it_is_valid() -> None:
    """With a schema a watcher sees no text before it is valid, and then all of it; a repair is announced."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["sev", "en"], gap_s=1), Script(pieces=["4", "2"], gap_s=1)))
        watcher = Watcher()
        reply = await world.ask("q", **ASK, watched=True, sink=watcher)
        assert reply.data == 42
        assert watcher.events == ["started", "restarted: repair", "started", "42"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("watched", [False, True])
def test_reasoning_may_be_seen_before(watched: bool) -> None:
    """Reasoning is no answer and may be watched while the text is held; each is shown once."""

    async def run() -> None:
        world = World(FakeProvider([Delta(reasoning="let me see"), Delta(text="7")]))
        watcher = Watcher()
        await world.ask("q", **ASK, watched=watched, sink=watcher)
        assert watcher.events == ["started", Delta(reasoning="let me see"), "7"]
        await world.close()

    run_virtual(run())


def test_held_text_that_broke_off_is_not_lost() -> None:
    """I2: text that was held is in `.partial` of the error."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["[1, ", "2"], hang=True)))
        late = await outcome(world.ask("q", **ASK, watched=True, deadline_s=2))
        assert isinstance(late, errors.DeadlineExceeded)
        assert late.partial is not None
        assert late.partial.text == "[1, 2"
        await world.close()

    run_virtual(run())


def test_a_tool_call_is_no_answer_yet() -> None:
    """An answer that only calls a tool is passed on as it is: schema and check are about the answer that follows."""

    async def run() -> None:
        call = Delta(tool_call=ToolCallFragment(0, "c1", "add", "{}"))
        world = World(FakeProvider([call]))
        watcher = Watcher()
        reply = await world.ask("q", **ASK, check=lambda _: False, watched=True, sink=watcher)
        assert reply.data is None
        assert reply.message["tool_calls"][0]["function"]["name"] == "add"
        assert watcher.events == ["started", call]
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- users' code


def test_a_check_gets_data_or_text() -> None:
    """With a schema a check gets `.data`, without one the text."""

    async def run() -> None:
        world = World(FakeProvider("7", "seven"))
        seen: list[object] = []
        await world.ask("a", **ASK, check=seen.append)
        await world.ask("b", check=seen.append)
        assert seen == [7, "seven"]
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda: False, "returned False"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: (_ for _ in ()).throw(SystemExit(3)), "SystemExit: 3"),
        (lambda: next(iter(())), "StopIteration"),
        (lambda: (_ for _ in ()).throw(TimeoutError("mine")), "TimeoutError: mine"),
    ],
)
def test_a_check_that_fails_in_any_way_asks_again(act: Any, problem: str) -> None:
    """False, or anything raised, sys.exit() too, is a failed check: the model is told, and the loop lives on."""

    async def run() -> None:
        world = World(FakeProvider("first", "second"))
        reply = await world.ask("q", check=lambda text: act() if text == "first" else None)
        assert (reply.text, reply.repairs) == ("second", 1)
        assert problem in world.provider.requests[1].content.messages[-1]["content"]
        await world.close()

    run_virtual(run())


def test_a_type_that_raises_asks_again() -> None:
    """A type's own code may raise whatever it likes: that is an answer that does not fit."""

    async def run() -> None:
        @dataclass
        class Picky:
            x: int

            def __post_init__(self) -> None:
                if self.x == 1:
                    raise KeyError("not one")

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider('{"x": 1}', '{"x": 2}'))
        reply = await world.ask("q", json_schema=schema, schema_type=Picky)
        assert reply.data == Picky(2)
        assert "not one" in world.provider.requests[1].content.messages[-1]["content"]
        await world.close()

    run_virtual(run())


def test_users_code_and_long_texts_run_in_worker_threads() -> None:
    """Checks, types with code of their own, and texts that take long to parse stay off the loop; small JSON is parsed in place."""

    async def run() -> None:
        loop_thread = threading.get_ident()
        threads: list[int] = []

        @dataclass
        class Typed:
            x: int

            def __post_init__(self) -> None:
                threads.append(threading.get_ident())

        world = World(FakeProvider("checked", '{"x": 1}', "7", "[" + "1," * 100_000 + "1]"))
        await world.ask("a", check=lambda _: threads.append(threading.get_ident()))
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        await world.ask("b", json_schema=schema, schema_type=Typed)
        assert len(threads) == 2
        assert loop_thread not in threads
        before = world.road.workers._executor
        world.road.workers.close()
        await world.ask("c", **ASK)
        assert before is not None
        assert world.road.workers._executor is None, "parsed in place"
        many = {"type": "array"}
        await world.ask("d", json_schema=many, schema_type=many)
        assert world.road.workers._executor is not None, "parsed in a thread"
        await world.close()

    run_virtual(run())


def test_a_check_that_hangs_runs_into_the_deadline() -> None:
    """A check that never returns costs its call the deadline, and nobody else anything."""

    async def run() -> None:
        release = threading.Event()
        world = World(FakeProvider(default="x"))
        try:
            began = now_s()
            hung = world.start("q", check=lambda _: release.wait(5), deadline_s=2)
            assert (await world.ask("other")).text == "x"
            assert isinstance(await outcome(hung), errors.DeadlineExceeded)
            assert now_s() - began <= 2.1
        finally:
            release.set()
        await world.close()

    run_virtual(run(), patience_s=0.01)


def test_a_slow_check_does_not_stall_the_loop() -> None:
    """While a check sleeps in its thread, the loop goes on turning."""

    async def main() -> None:
        world = World(FakeProvider(default="x"))
        call = world.start("q", check=lambda _: time.sleep(0.05))
        turns = 0
        while not call.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns >= 10
        await world.road.aclose()

    asyncio.run(main())


def test_a_check_sees_the_callers_context() -> None:
    """A check runs in the context of its call: context variables of the caller are there."""

    async def run() -> None:
        from contextvars import ContextVar

        name: ContextVar[str] = ContextVar("name", default="nobody")
        name.set("caller")
        seen: list[str] = []
        world = World(FakeProvider("x"))
        await world.ask("q", check=lambda _: seen.append(name.get()))
        assert seen == ["caller"]
        await world.close()

    run_virtual(run())


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, GeneratorExit, pytest.fail.Exception, BaseException, Hostile])
def test_nothing_that_users_code_raises_ends_the_loop(raised: type[BaseException]) -> None:
    """What is no Exception (KeyboardInterrupt, pytest.fail) is a failed check too, in a check and in a type's validator."""

    async def run() -> None:
        def refuse(first: bool) -> None:
            if first:
                raise raised("not this one")

        @dataclass
        class Picky:
            x: int

            def __post_init__(self) -> None:
                refuse(self.x == 1)

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider("first", "second", '{"x": 1}', '{"x": 2}'))
        reply = await world.ask("q", check=lambda text: refuse(text == "first"))
        assert (reply.text, reply.repairs) == ("second", 1)
        assert raised.__name__ in world.provider.requests[1].content.messages[-1]["content"]
        typed = await world.ask("q", json_schema=schema, schema_type=Picky)
        assert (typed.data, typed.repairs) == (Picky(2), 1)
        await world.close()

    run_virtual(run())


def test_a_check_may_say_no_as_numpy_does() -> None:
    """numpy.bool_(False) is a no as False is; None, arrays and true values are not."""
    np = pytest.importorskip("numpy")

    async def run() -> None:
        world = World(FakeProvider(default="x"))
        for no in (False, np.bool_(False), np.float64(1) > 2):
            result = await outcome(world.ask("q", check=lambda _, no=no: no, repairs=0, cache="off"))
            assert isinstance(result, errors.ValidationFailed), no
        for yes in (None, True, np.bool_(True), np.zeros(3), np.zeros(1), [], ""):
            result = await world.ask("q", check=lambda _, yes=yes: yes, repairs=0, cache="off")
            assert result.text == "x"
        await world.close()

    run_virtual(run())


def test_a_check_that_returns_an_awaitable_is_refused() -> None:
    """A plain function that returns a coroutine has checked nothing: it is refused by name, not repaired, and nothing is kept."""

    async def run() -> None:
        async def later() -> bool:
            return True

        world = World(FakeProvider(default="x"))
        with pytest.raises(errors.InvalidRequest, match="awaited"):
            await world.ask("q", check=lambda _: later())
        assert world.provider.calls == 1
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_what_is_wrong_is_told_to_the_model_in_short() -> None:
    """A check that raises three megabytes of text does not send them back to the model."""

    async def run() -> None:
        def check(text: str) -> None:
            if text == "first":
                raise ValueError("x" * 3_000_000)

        world = World(FakeProvider("first", "second"))
        assert (await world.ask("q", check=check)).text == "second"
        told = world.provider.requests[1].content.messages[-1]["content"]
        assert 1_500 <= len(told) < 2_000
        await world.close()

    run_virtual(run())
