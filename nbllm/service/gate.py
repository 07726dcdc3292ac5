"""Admission: so many requests run at once, so many wait for their turn, the rest is refused at once. Higher priority goes first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from nbllm.service.caller import Caller
from nbllm.service.problems import ServiceProblem

_SOON_S = 2.0


class GateFull(ServiceProblem):
    """There is no room: refused at once, put out by one with more priority, or waited too long."""

    def __init__(self, detail: str, retry_after_s: float = _SOON_S) -> None:
        super().__init__(503, "full", "The service is full.", detail, retry_after_s=retry_after_s)


class GateClosed(ServiceProblem):
    """The service is about to end and takes nothing new."""

    def __init__(self) -> None:
        super().__init__(503, "draining", "The service is about to end.", retry_after_s=_SOON_S, headers={"Connection": "close"})


class _Waiter:
    """One request that waits. Ordered as it will be let in: more priority first, then who came first."""

    __slots__ = ("order", "turn")

    def __init__(self, order: tuple[int, int], turn: asyncio.Future[None]) -> None:
        self.order = order
        self.turn = turn

    def __lt__(self, other: _Waiter) -> bool:
        return self.order < other.order


class Gate:
    """For one event loop. running, waiting: how many there are now; refused: how many were turned away since the start."""

    def __init__(self, *, max_running: int, max_waiting: int, queue_wait_s: float) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._queue_wait_s = queue_wait_s
        self._queue: list[_Waiter] = []
        self._numbers = count()
        self._closed = False
        self.running = 0
        self.waiting = 0
        self.refused = 0

    def close(self) -> None:
        """Take nothing new; who waits is told now, who runs may finish."""
        self._closed = True
        for waiter in self._queue:
            if not waiter.turn.done():
                waiter.turn.set_exception(GateClosed())

    @asynccontextmanager
    async def enter(self, caller: Caller) -> AsyncIterator[None]:
        """Hold a place for an `async with` block. Raises GateFull, GateClosed."""
        await self.take(caller)
        try:
            yield
        finally:
            self.leave()

    async def take(self, caller: Caller) -> None:
        """Take a place, to be given back by `leave`. Raises GateFull, GateClosed; then none was taken."""
        if self._closed:
            raise GateClosed
        if self.running < self._max_running and not self._queue:
            self.running += 1
        else:
            await self._wait(caller.tier.priority)

    def leave(self) -> None:
        """Give a place back."""
        self.running -= 1
        self._let_in()

    async def _wait(self, priority: int) -> None:
        """Wait for a place; when this returns, it is held."""
        waiter = _Waiter((-priority, next(self._numbers)), asyncio.get_running_loop().create_future())
        self._make_room(waiter)
        heapq.heappush(self._queue, waiter)
        self.waiting += 1
        self._let_in()
        try:
            async with asyncio.timeout(self._queue_wait_s):
                await waiter.turn
        except BaseException as exc:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.running -= 1  # let in and cancelled in one turn of the loop
                self._let_in()
            elif waiter in self._queue:
                self._queue.remove(waiter)
                heapq.heapify(self._queue)
            if isinstance(exc, TimeoutError):
                self.refused += 1
                raise GateFull(f"No place became free within {self._queue_wait_s:g} s.") from None
            raise
        finally:
            self.waiting -= 1

    def _make_room(self, waiter: _Waiter) -> None:
        """Let the one who would be let in last give way when the queue is full; that may be the new one."""
        waiting = [other for other in self._queue if not other.turn.done()]
        if len(waiting) < self._max_waiting:
            return
        self.refused += 1
        last = max(waiting, default=waiter)
        if last < waiter or last is waiter:
            raise GateFull(f"{len(waiting)} requests wait already.")
        last.turn.set_exception(GateFull("A request with more priority took the place in the queue."))

    def _let_in(self) -> None:
        while self.running < self._max_running and self._queue:
            waiter = heapq.heappop(self._queue)
            if not waiter.turn.done():
                self.running += 1
                waiter.turn.set_result(None)
