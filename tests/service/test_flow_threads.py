"""Flows that ask on threads of their own: what these ask is the flow's, and who called it pays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm.errors import InvalidRequest
from nbllm.flow_context import CALLER, PAYERS, CallerContext, once_in_a_flow
from nbllm.service.flow_specs import describe
from nbllm.service.flow_watch import Follower
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client, rows
from tests.service.test_flow_run import in_a_loop, running

QUESTIONS = ["a", "b", "c"]
OUTLIVES = ThreadPoolExecutor(1)
"""A pool that a module has for all of its flows."""


def asked(text: str) -> str:
    return nbllm.ask(text, cache="off").text


@nbllm.flow
def on_a_pool() -> list[str]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(asked, QUESTIONS))


@nbllm.flow
def on_a_pool_of_all() -> list[str]:
    return list(OUTLIVES.map(asked, QUESTIONS))


@nbllm.flow
def on_threads() -> list[str]:
    found: dict[str, str] = {}
    threads = [threading.Thread(target=lambda text=text: found.update({text: asked(text)})) for text in QUESTIONS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[text] for text in QUESTIONS]


@nbllm.flow
def on_a_thread_of_its_own_kind() -> list[str]:
    class Asking(threading.Thread):
        found: list[str]

        def run(self) -> None:
            self.found = [asked(text) for text in QUESTIONS]

    thread = Asking()
    thread.start()
    thread.join()
    return thread.found


@nbllm.flow
def on_threads_of_threads() -> list[str]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(on_a_pool.__wrapped__).result()  # type: ignore[attr-defined,no-any-return]


@nbllm.flow
def on_a_pool_of_multiprocessing() -> list[str]:
    with ThreadPool(2) as pool:
        return pool.map(asked, QUESTIONS)


@nbllm.flow
async def in_an_executor() -> list[str]:
    loop = asyncio.get_running_loop()
    return list(await asyncio.gather(*(loop.run_in_executor(None, asked, text) for text in QUESTIONS)))


@nbllm.flow
async def to_threads() -> list[str]:
    return list(await asyncio.gather(*(asyncio.to_thread(asked, text) for text in QUESTIONS)))


FLOWS = [
    on_a_pool, on_a_pool_of_all, on_threads, on_a_thread_of_its_own_kind, on_threads_of_threads, on_a_pool_of_multiprocessing,
    in_an_executor, to_threads,
]  # fmt: skip


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.__name__)
def test_threads_of_a_flow_ask_for_its_caller(flow: Callable[..., Any], tmp_path: Path) -> None:
    """Each call is in the caller's name and counted in the response; of two callers at once each pays for its own."""

    async def main() -> None:
        async with running(tmp_path, FakeProvider(default="fine")) as (runner, client):
            spec = describe(flow)

            async def of(name: str) -> Follower:
                CALLER.set(CallerContext(user=name))  # a task has a context of its own
                follower = Follower()
                assert await runner.run(spec, spec.arguments.model_validate({}), follower) == b'["fine","fine","fine"]'
                return follower

            followers = await asyncio.gather(of("key:one"), of("key:two"))
            assert [follower.made().calls for follower in followers] == [3, 3]
            users = [row.user for row in rows(client)]
            assert (users.count("key:one"), users.count("key:two"), len(users)) == (3, 3, 6)

    in_a_loop(main)


def test_a_pool_that_outlives_a_flow_knows_of_none_afterwards(tmp_path: Path) -> None:
    """Its threads were started in somebody's flow; what is asked on them outside of one is nobody's."""
    with ThreadPoolExecutor(1) as pool, fake_client(tmp_path) as client, nbllm.use(client):
        token = CALLER.set(CallerContext(user="key:one"))
        try:
            nbllm.flow(lambda: pool.submit(client.ask, "a").result())()
        finally:
            CALLER.reset(token)
        pool.submit(client.ask, "b").result()
        assert [row.user for row in rows(client)] == ["key:one", None]


def test_threads_outside_of_flows_are_as_ever() -> None:
    """They have an empty context, and a thread that is over holds nothing of a flow."""
    own: ContextVar[str] = ContextVar("own", default="none")
    seen: list[str] = []

    def started() -> threading.Thread:
        thread = threading.Thread(target=lambda: seen.append(own.get()))
        thread.start()
        thread.join()
        return thread

    own.set("mine")
    started()
    assert "run" not in vars(nbllm.flow(started)())
    assert seen == ["none", "mine"]


def test_what_a_cell_asked_once_is_asked_once_by_all_threads_of_a_flow() -> None:
    """Also where the first of them asks for it."""
    times: list[int] = []
    answer = once_in_a_flow(lambda: times.append(1) or len(times))

    @nbllm.flow
    def several() -> list[int]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda _: answer(), range(8)))

    assert several() == [1] * 8
    assert several() == [2] * 8


def test_where_all_is_for_callers_nobody_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that serves, what no caller waits for is refused before anything is sent, and told how it can be one's."""
    monkeypatch.setattr(PAYERS, "required", True)
    fake = FakeProvider()
    with fake_client(tmp_path, fake) as client:
        for ask in (client.ask, lambda _: client.embed(["a"])):
            with pytest.raises(InvalidRequest, match="nobody would pay for it") as caught:
                ask("a")
            assert "copy_context" in str(caught.value.hint)
        token = CALLER.set(CallerContext(user="key:one"))
        assert client.ask("a").text
        CALLER.reset(token)
    assert fake.calls == 1
