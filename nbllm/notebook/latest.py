"""Work on the latest of many values: what a slider asks for while its last position is still being drawn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Calls `work` with values, one at a time, from whichever threads give them; of those that come meanwhile the latest wins.

    Callbacks of widgets may run beside a cell, or beside each other. Who gives a value while another thread works returns at once;
    that thread takes it on. So after the last value was given, `work` has been, or is being, called with it last. An error of
    `work` is raised where it ran, once nothing waits.
    """

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[T] = []
        self._working = False

    def __call__(self, value: T) -> None:
        """Work on a value, unless a later one comes first."""
        with self._lock:
            self._waiting = [value]
            if self._working:
                return
            self._working = True
        error: BaseException | None = None
        while True:
            with self._lock:
                if not self._waiting:
                    self._working = False
                    break
                value = self._waiting.pop()
            try:
                self._work(value)
                error = None
            except BaseException as exc:  # a value that came meanwhile must not be lost with this one
                error = exc
        if error is not None:
            raise error
