"""A value that is read from a disk now and then, off the loop, and never trusted for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from nbllm.pipeline.stage import looked_at

T = TypeVar("T")
LOOK_EVERY_S = 1.0
"""How old a value may be before somebody looks again, behind the call that found it so."""
TRUST_S = 2.0
"""How old it may be when it is used: a call that comes after a longer pause waits for the look."""


class Looking(Generic[T]):
    """What `look` found last. Busy traffic never waits for a disk, and what changes there is in force within TRUST_S.

    look: reads in a thread; what it raises is raised to those who wait, and the value is gone. now_s: monotonic seconds.
    For one loop.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], now_s: Callable[[], float]) -> None:
        self._look = look
        self._now_s = now_s
        self._value: T | None = None
        self._found_at_s = float("-inf")
        self._task: asyncio.Task[T] | None = None
        self._tasks: set[asyncio.Task[T]] = set()

    def known(self) -> T | None:
        """Return the value while it may be trusted; None: ask get(). Any thread may ask."""
        return self._value if self._now_s() - self._found_at_s < TRUST_S else None

    async def get(self) -> T:
        """Return the value, looked for anew where it is too old. Raises what looking raises."""
        value = self.known()
        if value is None:
            return await asyncio.shield(self._task or self._begin())  # one look for all; it goes on when nobody waits any longer
        if self._task is None and self._now_s() - self._found_at_s >= LOOK_EVERY_S:
            self._begin()
        return value

    def forget(self) -> None:
        """Look again with the next call; what is being read just now may be what was there before. Any thread may say so."""
        self._value, self._found_at_s, self._task = None, float("-inf"), None

    async def aclose(self) -> None:
        """End what is being read."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> asyncio.Task[T]:
        task = self._task = asyncio.get_running_loop().create_task(self._looked())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(looked_at)
        return task

    async def _looked(self) -> T:
        began_s, mine, value = self._now_s(), asyncio.current_task(), None
        try:
            value = await self._look()
            return value
        finally:
            if self._task is mine:
                self._value, self._found_at_s, self._task = value, began_s, None
