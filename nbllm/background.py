"""The one event loop of a process, on a daemon thread, and the way of a call to it and back.

Handing a coroutine to another thread's loop costs a wake-up of that loop (about 0.1 ms); a mailbox wakes it once for many.
A KeyboardInterrupt may come between any two steps of a caller: whatever it leaves half done is taken back or does no harm.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from nbllm.errors import CallFailed
from nbllm.outcome import Cancelled, Outcome

T = TypeVar("T")
CLOSE_S = 1.0
"""How long a call that was cancelled is waited for, so that its socket and its rows are closed when the caller goes on."""
_SLICE_S = 0.1


class Mailbox:
    """Runs callbacks on a loop, posted from any thread, in order. Does not keep the loop alive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._posted: deque[Callable[[], object]] = deque()
        self._awake = False

    def post(self, callback: Callable[[], object]) -> bool:
        """Run a callback soon; False when the loop is closed and nothing will run there any more."""
        self._posted.append(callback)
        if self._awake:
            return True
        woken = False
        try:
            self._awake = True
            woken = self._wake()
        finally:
            # After an interrupt the next one who posts must wake the loop, at worst once too often.
            if not woken:
                self._awake = False
        return woken

    def _wake(self) -> bool:
        loop = self._loop()
        if loop is None:
            return False
        try:
            loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            if not loop.is_closed():
                raise
            return False
        return True

    def _empty(self) -> None:
        # Reset first: what is posted from here on wakes the loop again, at worst once too often, never once too rarely.
        self._awake = False
        posted = self._posted
        try:
            while posted:
                posted.popleft()()
        finally:
            if posted:
                self._wake()


class LoopHost:
    """A loop to run calls on: the process's own thread, or a loop that a service lends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.mailbox = Mailbox(loop)
        self.jobs: set[Job[Any]] = set()
        self.ended = False
        self.of_parent = False
        """In a forked child: the loop, and what runs on it, is the parent's."""

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on this loop, where waiting for it would wait for ever."""
        return asyncio._get_running_loop() is self.loop  # noqa: SLF001 - public but for its name; the public one raises

    def stop(self) -> None:
        """Let the loop end, from any thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)

    def end(self) -> None:
        """The loop is closed: whoever still waits for it is told."""
        self.ended = True
        for job in list(self.jobs):
            job.abandon()


class Job(Generic[T]):
    """One coroutine on a host's loop, seen from outside. Runs in the context of the thread that made it.

    Nothing happens before `start`. `done` is set when it is over; Cancelled is the outcome of one that was cancelled.
    """

    def __init__(self, host: LoopHost, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.done: Outcome[T] = Outcome()
        self._host = host
        self._work: Callable[[], Coroutine[Any, Any, T]] | None = work
        self._context = copy_context()
        self._task: asyncio.Task[T] | None = None
        self._started = self._cancelled = False

    def start(self) -> None:
        """Hand it to the loop, once."""
        if self._started:
            return
        self._started = True
        self._host.jobs.add(self)
        if self._host.ended or not self._host.mailbox.post(self._start):
            self.abandon()

    @property
    def of_parent(self) -> bool:
        """Whether it was begun before a fork, in the parent process, where it goes on."""
        return self._host.of_parent

    def cancel(self) -> None:
        """End it; its finally clauses run on the loop."""
        if self._host.of_parent or self.done.over:
            return
        self._cancelled = True
        if not self._host.mailbox.post(self._cancel):
            self.abandon()

    def abandon(self) -> None:
        """Tell whoever waits that the loop is gone."""
        self._host.jobs.discard(self)
        self.done.fail(_loop_closed())

    def _start(self) -> None:
        work, self._work = self._work, None
        if self._cancelled or work is None:
            self._host.jobs.discard(self)
            self.done.fail(Cancelled())
            return
        self._task = self._host.loop.create_task(work(), context=self._context)
        self._task.add_done_callback(self._over)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._work is not None:  # interrupted before it was handed over
            self._start()

    def _over(self, task: asyncio.Task[T]) -> None:
        self._task = None
        self._host.jobs.discard(self)
        if task.cancelled() and self._cancelled:
            self.done.fail(Cancelled())
        elif task.cancelled():  # by whoever ends the loop
            self.done.fail(_loop_closed())
        elif (error := task.exception()) is not None:
            self.done.fail(error)
        else:
            self.done.set(task.result())


def _loop_closed() -> CallFailed:
    return CallFailed("The event loop of this client was closed while the call was under way.", hint="Make another client.")


def waited(job: Job[T]) -> T:
    """Start a job and wait for it on the caller's own thread; a caller that is interrupted ends it first."""
    done = job.done
    if job.of_parent and not done.over:
        raise CallFailed("This call was begun before a fork, by the parent process.", hint="Ask anew in the child.")
    try:
        job.start()
        while not done.wait(_SLICE_S):  # in slices, so that Ctrl-C gets through on every system
            pass
    except BaseException:
        job.cancel()
        with suppress(BaseException):
            done.wait(CLOSE_S)
        raise
    return done.get()


async def awaited(job: Job[T]) -> T:
    """Start a job and wait for it on the caller's own loop; a caller that is cancelled ends it first."""
    loop = asyncio.get_running_loop()
    mailbox, here = mailbox_of(loop), loop.create_future()
    job.done.then(lambda: mailbox.post(lambda: None if here.done() else here.set_result(None)))
    try:
        job.start()
        await here
    except asyncio.CancelledError:
        job.cancel()
        ended = asyncio.Event()
        job.done.then(lambda: mailbox.post(ended.set))
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), CLOSE_S)
        raise
    try:
        return job.done.get()
    except Cancelled:
        raise asyncio.CancelledError from None


class _Background:
    """The daemon thread with its loop. Its users are counted by name, so that the last one out ends it."""

    _lock: threading.Lock
    _users: set[object]
    _host: LoopHost | None
    _thread: threading.Thread | None

    def __init__(self) -> None:
        self.forget()

    def acquire(self, user: object) -> LoopHost:
        """Return the running host, starting the thread for the first user."""
        with self._lock:
            self._users.add(user)
            if self._host is None:
                born: Outcome[LoopHost] = Outcome()
                thread = threading.Thread(target=run_loop, args=(born,), name="nbllm-loop", daemon=True)
                try:
                    thread.start()
                    while not born.wait(_SLICE_S):
                        pass
                    self._host, self._thread = born.get(), thread
                except BaseException:
                    born.then(lambda: born.get().stop())
                    raise
            return self._host

    def release(self, user: object) -> None:
        """Leave; the last user stops loop and thread. Leaving twice is fine."""
        with self._lock:
            self._users.discard(user)
            if self._users or self._host is None or self._thread is None:
                return
            host, thread = self._host, self._thread
            self._host = self._thread = None
        host.stop()
        thread.join(5.0)

    def forget(self) -> None:
        """Hold nothing: at birth, and in a forked child, where the thread is not."""
        self._lock = threading.Lock()
        self._users = set()
        self._host = self._thread = None

    def after_fork(self) -> None:
        """In a forked child: leave the loop to the parent."""
        if self._host is not None:
            self._host.of_parent = True
        self.forget()


def run_loop(born: Outcome[LoopHost], *, with_threads: bool = True) -> None:
    """Make a loop and run it on this thread until its host is stopped; `born` gets the host.

    with_threads: wait at the end for the threads that `asyncio.to_thread` made, too. What still runs is cancelled.
    """
    loop = asyncio.new_event_loop()
    host = LoopHost(loop)
    asyncio.set_event_loop(loop)
    loop.call_soon(born.set, host)
    try:
        loop.run_forever()
    finally:
        while left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        if with_threads:
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        host.end()


BACKGROUND = _Background()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BACKGROUND.after_fork)

_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = weakref.WeakKeyDictionary()


def mailbox_of(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """Return the mailbox of a caller's own loop, on which answers come back. Called on that loop."""
    mailbox = _mailboxes.get(loop)
    if mailbox is None:
        mailbox = _mailboxes[loop] = Mailbox(loop)
    return mailbox
