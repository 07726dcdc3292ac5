"""The end of a client: in order, at the interpreter's exit, and in a forked child."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from nbllm.background import BACKGROUND, Job
from nbllm.errors import CallFailed

if TYPE_CHECKING:
    from nbllm.house import House

_CLOSE_S = 5.0


class Closable(Protocol):
    """What the end of the process or a fork concerns."""

    def close(self) -> None:
        """End it."""

    def _after_fork(self) -> None:
        """Begin anew in a child."""


_clients: weakref.WeakSet[Closable] = weakref.WeakSet()
_of_the_parent: list[House] = []


def watch(client: Closable) -> None:
    """Close a client at the interpreter's exit, and let it start fresh in a forked child."""
    _clients.add(client)


def keep_for_parent(house: House) -> None:
    """In a forked child: never let go of what the parent's client holds; to close it would end the parent's connections."""
    _of_the_parent.append(house)


def shut(house: House, user: object) -> None:
    """Close everything that a client had opened; whatever fails or takes too long, the rest is closed all the same."""
    try:
        job = Job(house.host, house.aclose)
        job.start()
        if job.done.wait(_CLOSE_S):
            with suppress(CallFailed):  # a lent loop that was closed before us
                job.done.get()
    finally:
        try:
            house.storage.close()
        finally:
            if not house.lent:
                BACKGROUND.release(user)


async def in_thread(work: Callable[[], object]) -> None:
    """Run work to its end in a thread of its own: the caller's loop is left without threads of ours."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as exc:
            error = exc
        with suppress(RuntimeError):  # a loop that did not wait for us
            loop.call_soon_threadsafe(_settle, over, error)

    thread = threading.Thread(target=run, name="nbllm-close")
    thread.start()
    await asyncio.shield(over)
    thread.join()


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


@atexit.register
def _close_all() -> None:
    for client in list(_clients):
        with suppress(Exception):
            client.close()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001 - the hook is the client's own; the system calls functions only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
