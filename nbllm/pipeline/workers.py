"""The threads in which users' code runs: checks, validators, hooks. None of it can stall or end the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """The threads in which users' code runs, made on first use."""

    def __init__(self, executor: Callable[[], Executor]) -> None:
        self._make = executor
        self._executor: Executor | None = None
        self._lock = Lock()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Start work in a thread, in the caller's context. Any thread may ask."""
        with self._lock:
            if self._executor is None:
                self._executor = self._make()
            return self._executor.submit(copy_context().run, work)

    async def run(self, work: Callable[[], T]) -> T:
        """Run work in a thread and wait for it."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Let go of the threads; what a user's function still does is not waited for."""
        with self._lock:
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
                self._executor = None
