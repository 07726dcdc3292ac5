from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.core.ports import SharedState
from nbllm.storage.memory import MemoryState


@pytest.fixture(params=["memory", "redis"])
def sharing(request) -> Callable[[], SharedState[int]]:
    """What gives one more process's view of one shared place."""
    if request.param == "memory":
        one: MemoryState[int] = MemoryState()
        return lambda: one
    from nbllm.storage.redis_link import Link
    from nbllm.storage.redis_states import Codec, RedisState

    server = request.getfixturevalue("redis_server")
    server.flush()
    codec = Codec(msgspec.json.encode, msgspec.json.Decoder(int).decode, lambda state, _: state)
    return lambda: RedisState(Link(server.url), "number", codec)


def test_apply_replaces_and_returns(sharing):
    """The function sees None first, then what it left."""

    async def run() -> None:
        state = sharing()
        assert await state.read("k") is None
        assert await state.apply("k", lambda old: ((old or 0) + 1, old)) is None
        assert await state.apply("k", lambda old: ((old or 0) + 1, old)) == 1
        assert await state.read("k") == 2
        assert await state.read("other") is None

    asyncio.run(run())


def test_a_change_that_raises_changes_nothing(sharing):
    """Its error is its caller's alone: others that come at the same time go on."""

    async def run() -> None:
        state = sharing()

        def broken(_: int | None) -> tuple[int, None]:
            raise KeyError("mine")

        changes = [lambda old: ((old or 0) + 1, None), broken, lambda old: ((old or 0) + 1, None)]
        results = await asyncio.gather(*(state.apply("k", change) for change in changes), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), KeyError, type(None)]
        assert await state.read("k") == 2

    asyncio.run(run())


def test_many_callers_of_several_processes_lose_no_change(sharing):
    """Each of 600 changes, made at the same time through three views, is counted and sees a number of its own."""

    async def run() -> None:
        views = [sharing() for _ in range(3)]
        seen = await asyncio.gather(
            *(views[number % 3].apply("k", lambda old: ((old or 0) + 1, (old or 0) + 1)) for number in range(600))
        )
        assert sorted(seen) == list(range(1, 601))

    asyncio.run(run())


def test_threads_lose_no_change(sharing):
    """Eight threads, each with a view of its own, count to 800 together."""
    views = [sharing() for _ in range(8)]

    def work(state: SharedState[int]) -> None:
        async def run() -> None:
            for _ in range(100):
                await state.apply("k", lambda old: ((old or 0) + 1, None))

        asyncio.run(run())

    threads = [threading.Thread(target=work, args=(view,)) for view in views]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(sharing().read("k")) == 800


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.sampled_from("ab"), st.integers(-3, 3)), max_size=12))
def test_any_order_of_changes(sharing, steps):
    """Changes made one after the other through two views sum up as they would in one dict."""

    async def run() -> None:
        views = [sharing(), sharing()]
        base = {key: await views[0].read(key) or 0 for key in "ab"}
        for which, key, by in steps:
            base[key] += by
            result = await views[which].apply(key, lambda old, by=by: ((old or 0) + by, (old or 0) + by))
            assert result == base[key] or by == 0, "a change that changes nothing may be made on a copy of a moment ago"

    asyncio.run(run())
