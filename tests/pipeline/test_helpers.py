"""Helper calls: embedding, classifying, verifying and judging for a request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, Request, Sink
from nbllm.core.reply import Reply
from nbllm.pipeline.stage import call_of
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import World

ASK = ({"role": "user", "content": "which kind?"},)


class Asking:
    """Stands where route does: does something with the helpers, then lets the road go on."""

    def __init__(self, world: World, work: Any) -> None:
        deadline: Any = world.road._first._inner
        self._inner, deadline._inner = deadline._inner, self
        self._work = work
        self.results: list[Any] = []

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        self.results.append(await self._work(request))
        return await self._inner(request, sink)


def played(work: Any, **world: Any) -> tuple[World, Any, Reply]:
    """One call whose road asks helpers on the way: the world at rest, what the helpers gave, the reply."""

    async def run() -> tuple[World, Any, Reply]:
        there = World(**{"providers": {"one": FakeProvider(), "help": FakeProvider(default="kind A")}, **world})
        asking = Asking(there, lambda request: work(there, request))
        reply = await there.ask("hello", feature="f")
        await there.close()
        return there, asking.results[0], reply

    return run_virtual(run())


async def caught(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except errors.NbllmError as exc:
        return exc


@pytest.mark.parametrize("cached", [False, True])
def test_helpers_are_attempts_of_their_call(cached: bool) -> None:
    """Helpers' rows carry what they were for and the call's id, in order; the reply's cost is that of all of them together."""

    async def work(world: World, request: Request) -> Any:
        label = await world.road.helpers.ask(request, "help/m", ASK, purpose="classify", max_tokens=5, cached=cached)
        return label, await world.road.helpers.embed(request, "help/e", ["a", "b"], cached=cached)

    world, (label, vectors), reply = played(work)
    assert label.text == "kind A"
    assert vectors.shape == (2, 8)
    assert vectors.dtype == np.float32
    rows = list(world.ledger.attempts_by_id.values())
    assert [row.purpose for row in rows] == ["classify", "embed", "answer"]
    assert [row.number for row in rows] == [1, 2, 3]
    assert {row.call_id for row in rows} == {reply.call_id}
    assert [a.purpose for a in reply.attempts] == ["classify", "embed", "answer"]
    costs = [row.cost_usd for row in rows]
    assert reply.cost_usd == sum(costs) > rows[2].cost_usd  # type: ignore[arg-type, operator]
    assert world.spent("feature:f") == reply.cost_usd
    assert reply.text == "ok"
    assert reply.usage == rows[2].usage


def test_a_label_that_is_kept_is_not_asked_for_again() -> None:
    """Asked again with cached=True, a helper's answer comes from the cache: and calls at the same time share one run."""

    async def run() -> None:
        world = World(providers={"one": FakeProvider(), "help": FakeProvider(default=Script(pieces=["kind A"], first_after_s=1))})
        Asking(world, lambda r: world.road.helpers.ask(r, "help/m", ASK, purpose="classify", cached=True))
        first = await asyncio.gather(*(world.ask(f"q{n}") for n in range(5)))
        assert world.providers["help"].calls == 1
        assert sorted(len(reply.attempts) for reply in first) == [1, 1, 1, 1, 2]
        again = await world.ask("another")
        assert world.providers["help"].calls == 1
        assert [a.purpose for a in again.attempts] == ["answer"]
        await world.ask("q0", cache="off")
        assert world.providers["help"].calls == 2
        await world.close()

    run_virtual(run())


def test_a_partition_has_its_own_labels() -> None:
    """What was kept for one partition's calls is not read for another's."""

    async def run() -> None:
        world = World(providers={"one": FakeProvider(), "help": FakeProvider(default="kind A")})
        Asking(world, lambda r: world.road.helpers.ask(r, "help/m", ASK, purpose="classify", cached=True))
        await world.ask(partition="a")
        await world.ask("other", partition="b")
        assert world.providers["help"].calls == 2
        await world.close()

    run_virtual(run())


def test_a_helper_has_its_own_time() -> None:
    """After at_most_s a helper is given up upstream, its row is closed, and the call goes on within its own deadline."""

    async def work(world: World, request: Request) -> Any:
        began_s = world.clock.now_s()
        result = await caught(world.road.helpers.embed(request, "help/e", ["a"], at_most_s=0.5))
        return result, world.clock.now_s() - began_s

    slow = FakeProvider(default=Script(hang=True))
    world, (error, took_s), reply = played(work, providers={"one": FakeProvider(), "help": slow})
    assert isinstance(error, errors.DeadlineExceeded)
    assert took_s == pytest.approx(0.5)
    assert slow.cancelled == 1
    assert [row.status for row in world.ledger.attempts_by_id.values()] == [AttemptStatus.CANCELLED, AttemptStatus.DONE]
    assert reply.text == "ok"


def test_the_parents_deadline_ends_a_helper() -> None:
    """A helper without a time of its own ends with its call's deadline, and its attempt is the call's all the same."""

    async def run() -> None:
        world = World(providers={"one": FakeProvider(), "help": FakeProvider(default=Script(hang=True))})
        Asking(world, lambda r: world.road.helpers.embed(r, "help/e", ["a"]))
        with pytest.raises(errors.DeadlineExceeded):
            await world.ask(deadline_s=2)
        (row,) = world.ledger.attempts_by_id.values()
        assert (row.purpose, row.status) == ("embed", AttemptStatus.CANCELLED)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("cached", [False, True])
def test_who_cancels_the_call_cancels_its_helper(cached: bool) -> None:
    """A cancelled call leaves no helper behind: upstream closed, row closed, nothing reserved."""

    async def run() -> None:
        help_ = FakeProvider(default=Script(hang=True))
        world = World(providers={"one": FakeProvider(), "help": help_})
        Asking(world, lambda r: world.road.helpers.ask(r, "help/m", ASK, purpose="judge", cached=cached))
        task = world.start(budget_usd=Decimal(1))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert help_.cancelled == 1
        await world.close()

    run_virtual(run())


def test_a_budget_refuses_a_helper_before_it_is_sent() -> None:
    """A helper reserves like any attempt: what does not fit is refused, nothing is sent, and the call can go on without."""

    async def work(world: World, request: Request) -> Any:
        return await caught(world.road.helpers.embed(request, "help/e", ["x" * 3_000_000]))

    world, error, reply = played(work, settings={"budget_session_usd": "1.00"})
    assert isinstance(error, errors.BudgetExceeded)
    assert world.providers["help"].calls == 0
    assert reply.text == "ok"


def test_helpers_count_against_the_callers_limits() -> None:
    """What helpers cost is spent: the session's budget that they used up refuses the answer itself."""

    async def work(world: World, request: Request) -> Any:
        return await world.road.helpers.embed(request, "help/e", ["many words " * 9_000])

    async def run() -> None:
        world = World(providers={"one": FakeProvider(), "help": FakeProvider()}, settings={"budget_session_usd": "0.1"})
        world.provider = world.providers["help"]
        Asking(world, lambda request: work(world, request))
        error = await caught(world.ask("hello " * 15_000, max_tokens=400))
        assert isinstance(error, errors.BudgetExceeded), error
        assert world.spent() > Decimal("0.017")
        await world.close()

    run_virtual(run())


def test_a_helper_that_fails_is_its_own_matter() -> None:
    """Retries, then the error goes to who asked; its partial text is not the call's, and the answer is what the model says."""

    async def work(world: World, request: Request) -> Any:
        error = await caught(world.road.helpers.ask(request, "help/m", ASK, purpose="verify"))
        return error, call_of(request).partial, call_of(request).waited_s

    broken = FakeProvider(default=Script(pieces=["half an ans"], then=errors.ServerFailed))
    _, (error, partial, _), reply = played(work, providers={"one": FakeProvider(), "help": broken})
    assert isinstance(error, errors.ServerFailed)
    assert partial is None
    assert broken.calls == 3
    assert [a.purpose for a in reply.attempts] == ["verify"] * 3 + ["answer"]


def test_vectors_that_make_no_sense_are_no_vectors() -> None:
    """Fewer vectors than texts, or numbers that are none, are a bad answer, not an embedding."""

    async def work(world: World, request: Request) -> Any:
        return [await caught(world.road.helpers.embed(request, "help/e", ["a", "b"])) for _ in range(2)]

    from nbllm.core.messages import Ending

    given = (((1.0,),), ((1.0,), (float("nan"),)))
    answers = FakeProvider(*(Ending(finish_reason="stop", vectors=vectors) for vectors in given))
    _, results, _ = played(work, providers={"one": FakeProvider(), "help": answers})
    assert [type(result) for result in results] == [errors.BadAnswer, errors.BadAnswer]


def test_an_unknown_helper_is_named() -> None:
    """A model id that nobody answers to is told to who asked, before anything is sent."""

    async def work(world: World, request: Request) -> Any:
        return await caught(world.road.helpers.embed(request, "unknown/e", ["a"]))

    world, error, _ = played(work)
    assert isinstance(error, errors.UnknownModel)
    assert len(world.ledger.attempts_by_id) == 1
