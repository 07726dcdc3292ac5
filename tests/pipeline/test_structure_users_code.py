"""structure: checks and types of the user, which may do anything, in threads of their own."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.making import ASK
from tests.pipeline.world import World, now_s, outcome


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
