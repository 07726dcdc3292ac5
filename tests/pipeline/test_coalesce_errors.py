"""coalesce in one process: an error reaches each waiter, as its own."""

from __future__ import annotations

import asyncio

import pytest

from nbllm import errors
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import World, outcome


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
