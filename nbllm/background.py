"""The one event loop of a process, on a daemon thread, and the way of a call to it and back.

Handing a coroutine to another thread's loop costs a wake-up of that loop (about 0.1 ms); a mailbox wakes it once for many.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class Mailbox:
    """Runs callbacks on a loop, posted from any thread, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[Callable[[], object]] = deque()
        self._awake = False

    def post(self, callback: Callable[[], object]) -> None:
        """Run a callback soon. RuntimeError when the loop is closed."""
        self._posted.append(callback)
        if not self._awake:
            self._awake = True
            self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        # Reset first: what is posted from here on wakes the loop again, at worst once too often, never once too rarely.
        self._awake = False
        posted = self._posted
        while posted:
            posted.popleft()()


class LoopHost:
    """A loop to run calls on: the process's own thread, or a loop that a service lends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int) -> None:
        self.loop = loop
        self.thread_id = thread_id
        self.mailbox = Mailbox(loop)

    @property
    def is_here(self) -> bool:
        """Whether the caller is on this loop's own thread, where waiting for it would wait for ever."""
        return threading.get_ident() == self.thread_id


class Job(Generic[T]):
    """One coroutine on a host's loop, seen from outside. `done` is set when it is over, cancelled ones included."""

    def __init__(self, host: LoopHost, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.done: Future[T] = Future()
        self._host = host
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False
        host.mailbox.post(self._start)

    def cancel(self) -> None:
        """End it; its finally clauses run on the loop."""
        self._cancelled = True
        self._host.mailbox.post(lambda: self._task.cancel() if self._task is not None else None)

    def _start(self) -> None:
        if self._cancelled:
            self.done.cancel()
            return
        self._task = self._host.loop.create_task(self._work())
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.done.cancel()
            self.done.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())


class _Background:
    """The daemon thread with its loop; counted, so that the last one out ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._host: LoopHost | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> LoopHost:
        """Return the running host, starting the thread for the first user."""
        with self._lock:
            self._users += 1
            if self._host is None:
                loop = asyncio.new_event_loop()
                ready = threading.Event()
                self._thread = threading.Thread(target=_run, args=(loop, ready), name="nbllm-loop", daemon=True)
                self._thread.start()
                ready.wait()
                assert self._thread.ident is not None  # noqa: S101 - it is running
                self._host = LoopHost(loop, self._thread.ident)
            return self._host

    def release(self) -> None:
        """Leave; the last user stops loop and thread."""
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._host is None or self._thread is None:
                return
            host, thread = self._host, self._thread
            self._host = self._thread = None
        host.loop.call_soon_threadsafe(host.loop.stop)
        thread.join(5.0)

    def forget(self) -> None:
        """In a forked child: the thread is not there, and its loop belongs to the parent."""
        self._lock = threading.Lock()
        self._users = 0
        self._host = self._thread = None


def _run(loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.call_soon(ready.set)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


BACKGROUND = _Background()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BACKGROUND.forget)

_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Return the mailbox of a caller's own loop, on which answers come back. Called on that loop."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = Mailbox(loop)
    return mailbox


async def awaited(job: Job[T]) -> T:
    """Wait for a job on the caller's own loop; a caller that is cancelled cancels it."""
    mailbox = mailbox_of(asyncio.get_running_loop())
    here = asyncio.Event()
    job.done.add_done_callback(lambda _: mailbox.post(here.set))
    try:
        await here.wait()
    except asyncio.CancelledError:
        job.cancel()
        raise
    if job.done.cancelled():
        raise asyncio.CancelledError
    return job.done.result()
