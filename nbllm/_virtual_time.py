"""An asyncio event loop whose time is virtual: sleeps, timeouts and deadlines of hours pass in microseconds, in the right order."""

from __future__ import annotations

import asyncio
import selectors
import sys
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 1.0
SHUTDOWN_PATIENCE_S = 10.0
_WRAP_FUTURE = asyncio.futures.wrap_future.__code__


class FakeClock:
    """A clock that moves only when it is told to: monotonic `now_s` and Unix `unix_s`, both in seconds, moving together.

    Call it (`clock()`) where a function wants a monotonic clock; `clock.unix` where it wants `time.time`.
    """

    def __init__(self, now_s: float = 1_000.0, unix_s: float = 1_767_225_600.0) -> None:
        self.now_s = now_s
        self._unix_offset_s = unix_s - now_s

    @property
    def unix_s(self) -> float:
        """Unix time in seconds (by default the clock starts at 2026-01-01T00:00:00Z)."""
        return self.now_s + self._unix_offset_s

    def __call__(self) -> float:
        """Return the monotonic time in seconds."""
        return self.now_s

    def unix(self) -> float:
        """Return the Unix time in seconds."""
        return self.unix_s

    def advance(self, seconds: float) -> None:
        """Move forward. A monotonic clock never goes back: negative seconds raise ValueError."""
        if not seconds >= 0:
            raise ValueError(f"A clock cannot be advanced by {seconds!r} s; give 0 or more.")
        self.now_s += seconds


class Deadlock(AssertionError):
    """Every task waits, and nothing that could wake one is left: no timer, no thread at work, no callback."""


class _JumpingSelector(selectors.BaseSelector):
    """Polls the real selector without waiting; where asyncio would wait for a timer, the clock jumps to it."""

    def __init__(self, loop: weakref.ref[VirtualTimeLoop], clock: FakeClock, patience_s: float) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        self._clock = clock
        self.patience_s = patience_s
        self.outside: set[object] = set()
        """Futures that another thread will complete; virtual time stands still for them, within patience_s."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or timeout == 0:
            return events
        # Without a timer, any thread may still be about to wake the loop; that nobody is can only be told by waiting.
        if self.outside or timeout is None:
            events = self._real.select(self.patience_s)
            if events:
                return events
            self.outside.clear()  # a stuck thread is waited for once, not before every timer
        if timeout is None:
            raise Deadlock(_waiting(self._loop()))
        self._clock.advance(max(timeout, 0.0))
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def _waiting(loop: asyncio.AbstractEventLoop | None) -> str:
    """Say which tasks wait, and where."""
    lines = ["Deadlock: every task waits and no timer, thread or socket is left that could wake one."]
    for task in sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name):
        stack = task.get_stack(limit=1)
        where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "not started"
        lines.append(f"  {task.get_name()} at {where}")
    return "\n".join(lines)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector loop on a FakeClock. Timers fire in order and at once; work in threads is waited for really.

    Real sockets do not mix with virtual time: a timer would fire long before the other side could answer.
    """

    def __init__(self, clock: FakeClock | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self.clock = clock or FakeClock()
        self._jumping = _JumpingSelector(weakref.ref(self), self.clock, patience_s)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual monotonic time in seconds."""
        return self.clock.now_s

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future; one that wraps another thread's future holds virtual time still until it is done."""
        future = super().create_future()
        # run_in_executor, to_thread and wrap_future all make their future here, and only here: the one place to see such work.
        if sys._getframe(1).f_code is _WRAP_FUTURE:  # noqa: SLF001
            self._jumping.outside.add(future)
            future.add_done_callback(self._came_back)
        return future

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        self._jumping.outside.discard(future)

    async def shutdown_default_executor(self, *_: object, **__: object) -> None:
        """Wait really until the pool's threads have ended."""
        self._jumping.patience_s = max(self._jumping.patience_s, SHUTDOWN_PATIENCE_S)
        self._jumping.outside.add(self)
        await super().shutdown_default_executor()


def run_virtual(main: Coroutine[Any, Any, T], *, clock: FakeClock | None = None, patience_s: float = PATIENCE_S) -> T:
    """Run a coroutine to its end in virtual time and return its result.

    asyncio.sleep, timeout, wait_for and call_later pass at once, in the right order; work in threads (run_in_executor,
    to_thread, wrap_future) is waited for really, at most `patience_s` real seconds, after which virtual time goes on without
    it, so that a stuck thread can still run into a deadline. Raises Deadlock, naming the tasks, instead of hanging, when for
    that long no timer is left and no thread wakes the loop.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(clock, patience_s=patience_s)) as runner:
        return runner.run(main)
