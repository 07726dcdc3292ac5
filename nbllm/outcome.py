"""How something ended, told from one thread to others, without a lock that an interrupt could leave taken.

The standard library's Future, Event and Condition take a lock in Python code: a KeyboardInterrupt right after that leaves it
taken, and the thread that has to tell the outcome, here the loop's, would wait for it for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Cancelled(Exception):
    """The outcome of what was cancelled."""


class Bell:
    """Wakes one thread that waits for it; rings that nobody waited for are remembered as one."""

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the waiting thread, or let its next wait return at once. From any thread."""
        with suppress(RuntimeError):  # it rang already
            self._silent.release()

    def wait(self, at_most_s: float) -> bool:
        """Wait for a ring; False when there was none in time."""
        return self._silent.acquire(timeout=at_most_s)


class Outcome(Generic[T]):
    """A value or an error, set once by one thread."""

    def __init__(self) -> None:
        self._over = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: deque[Callable[[], object]] = deque()

    @property
    def over(self) -> bool:
        """Whether it was set."""
        return self._over

    def set(self, value: T) -> None:
        """Set a value. The first outcome holds."""
        if not self._over:
            self._value = value
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Set an error."""
        if not self._over:
            self._error = error
            self._tell()

    def then(self, callback: Callable[[], object]) -> None:
        """Call back, once, in the thread that sets the outcome, or here and now when it is set."""
        self._callbacks.append(callback)
        if self._over:
            self._call_back()

    def wait(self, at_most_s: float) -> bool:
        """Wait until it is set; False when it was not in time."""
        if not self._over:
            bell = Bell()
            self.then(bell.ring)
            bell.wait(at_most_s)
        return self._over

    def get(self) -> T:
        """Return the value or raise the error of an outcome that is over."""
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def _tell(self) -> None:
        self._over = True
        self._call_back()

    def _call_back(self) -> None:
        # Both sides take callbacks out one by one, so each is called once, whoever comes first.
        with suppress(IndexError):
            while True:
                self._callbacks.popleft()()
