"""The loop that async flows run on: a thread of its own, so that one that blocks stalls no request that is no flow.

All async flows share it, because what they keep for themselves (a lock, a client of their own) belongs to one loop. So one that
blocks holds up the others: those that have not begun when the loop is given up are begun anew on the next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from nbllm.background import Job, LoopHost, awaited, run_loop
from nbllm.outcome import Outcome

T = TypeVar("T")
Hold = Callable[[Callable[[], object]], Callable[[], object]]
"""Keeps what ends a run; returns what lets go of that."""
_BORN_S = 10.0
_END_S = 2.0


class _Moved(Exception):
    """The loop was given up before this run had begun."""


class _Turn(Generic[T]):
    """One run on one loop; whoever takes it first, the loop to begin it or `answers` to move it, has it alone."""

    def __init__(self, host: LoopHost, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.host = host
        self.job: Job[T] = Job(host, lambda: self._begun(work))
        self._free = [True]

    async def _begun(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if not self._take():
            raise _Moved
        return await work()

    def move(self) -> None:
        """Tell whoever waits that it is to be begun elsewhere, unless it has begun. From any thread."""
        if self._take():
            self.host.jobs.discard(self.job)
            self.job.done.fail(_Moved())

    def _take(self) -> bool:
        try:
            return self._free.pop()  # atomic: the loop that seemed lost may come back at this moment
        except IndexError:
            return False


class FlowLoop:
    """Starts its thread on first use. One that no longer answers is left to itself, and another takes its place."""

    def __init__(self, name: str = "nbllm-flows") -> None:
        self._name = name
        self._host: LoopHost | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._turns: set[_Turn[Any]] = set()

    async def run(
        self, work: Callable[[], Coroutine[Any, Any, T]], hold: Callable[[Callable[[], object]], Callable[[], object]]
    ) -> T:
        """Run something on the loop, once, and return what it returns. Raises what it raises."""
        while True:
            turn = _Turn(self.host(), work)
            turn.job.done.then(hold(turn.job.cancel))  # a stop ends the whole task, not only its calls of the moment
            self._turns.add(turn)
            try:
                result: T = await awaited(turn.job)
            except _Moved:
                continue
            finally:
                self._turns.discard(turn)
            return result

    def host(self) -> LoopHost:
        """Return the loop. RuntimeError after `aclose`."""
        if self._closed:
            raise RuntimeError("The service is closed.")
        if self._host is None:
            born: Outcome[LoopHost] = Outcome()
            # A thread of a flow that never comes back must not keep the loop from ending.
            own = {"born": born, "with_threads": False}
            self._thread = threading.Thread(target=run_loop, kwargs=own, name=self._name, daemon=True)
            self._thread.start()
            if not born.wait(_BORN_S):
                raise RuntimeError("The thread for async flows did not start.")
            self._host = born.get()
        return self._host

    async def answers(self, within_s: float) -> bool:
        """Whether the loop gets to do anything; one that does not is replaced for the flows that come."""
        host = self._host
        if host is None:
            return True
        here: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = asyncio.get_running_loop()

        def told() -> None:
            if not here.done():
                here.set_result(None)

        def seen() -> None:
            with suppress(RuntimeError):  # whoever asked is gone
                mine.call_soon_threadsafe(told)

        with suppress(RuntimeError):
            host.loop.call_soon_threadsafe(seen)
        done, _ = await asyncio.wait([here], timeout=within_s)
        if not done and self._host is host:
            with suppress(RuntimeError):
                host.stop()  # should it ever come back
            self._host = self._thread = None
            for turn in list(self._turns):
                if turn.host is host:
                    turn.move()
        return bool(done)

    async def aclose(self) -> None:
        """End the loop and its thread; one that is stuck is left behind, and does not keep the process."""
        host, thread, self._host, self._thread, self._closed = self._host, self._thread, None, None, True
        if host is not None and thread is not None:
            with suppress(RuntimeError):
                host.stop()
            await asyncio.to_thread(thread.join, _END_S)
