"""Jobs that wait for a database, and the thread that sees them through.

The thread starts with the first job and ends after LINGER_S without one: at rest there is none.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nbllm.errors import StorageError

LINGER_S = 1.0
BATCH = 64
"""Jobs in one transaction: enough to be quick, few enough that nobody waits for long."""

Many = Callable[[sqlite3.Connection, list[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class Refused:
    """What a job gets that its `many` refuses: its own error, which leaves the others alone."""

    error: Exception


@dataclass(slots=True)
class Job:
    """One piece of work on the connection. `then` gets its result after the commit, before anybody else is told.

    Past `deadline_s` (monotonic) the future fails; a job to be `kept` stays in line all the same: its row may still be saved.
    many: does the jobs of its kind that stand in one transaction in one go, each with its `asked`; returns what each gets, or that
    it is Refused: then there is no result that `then` could get.
    """

    run: Callable[[sqlite3.Connection], Any]
    then: Callable[[Any], None] | None = None
    deadline_s: float | None = None
    kept: bool = True
    many: Many | None = None
    asked: Any = None
    result: Any = None
    error: BaseException | None = None
    _future: Future[Any] | None = None

    @property
    def future(self) -> Future[Any]:
        """How it goes. Made when first asked for, before the job is queued: most jobs are done before anybody has to wait."""
        if self._future is None:
            self._future = Future()
            # A caller that is cancelled while it waits must not cancel the write.
            self._future.set_running_or_notify_cancel()
        return self._future

    def settle(self) -> None:
        """Tell whoever waits how it went; too late is no error."""
        future = self.future
        if future.done():
            return
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.result)

    def fail(self, exc: BaseException) -> None:
        """Settle it as failed."""
        self.error = exc
        self.settle()


class Writer:
    """A line of jobs and a daemon thread that hands them, some at a time, to `commit`.

    commit returns how many of them, from the first on, it saw through (0: the database is busy). `rest` is called by the thread
    when the line is empty and `nudge` was called; `busy` makes the error for jobs that waited too long.
    """

    def __init__(
        self, name: str, commit: Callable[[list[Job]], int], rest: Callable[[], None], busy: Callable[[], StorageError]
    ) -> None:
        self._name = name
        self._commit = commit
        self._rest = rest
        self._busy = busy
        self._line: deque[Job] = deque()
        # Taken by itself: a Condition takes it in Python code, and Ctrl-C right after that would leave it taken.
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._thread: threading.Thread | None = None
        self._nudged = False
        self._closing = False
        self.pending = 0
        """Jobs not yet committed: while there are any, later ones must queue too, to keep their order."""

    def put(self, job: Job) -> None:
        """Append a job."""
        with self._mutex:
            self._line.append(job)
            self.pending += 1
            self._wake()

    def nudge(self) -> None:
        """Have `rest` called soon, on the thread."""
        with self._mutex:
            self._nudged = True
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is pending; False when it took too long."""
        with self._mutex:
            return self._changed.wait_for(lambda: not self.pending, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Let what waits be committed, fail what could not be in time, and end the thread."""
        self.wait_empty(timeout_s)
        with self._mutex:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        with self._mutex:
            lost, self.pending = list(self._line), 0
            self._line.clear()
            self._closing = False
        for job in lost:
            job.fail(self._busy())

    def _work(self) -> None:
        delay_s = 0.001
        while (batch := self._next_batch()) is not None:
            if not batch:
                self._rest()
                continue
            if done := self._commit(batch):
                delay_s = 0.001
                self._finish(batch[:done])
                continue
            self._expire()
            time.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, 0.05)

    def _next_batch(self) -> list[Job] | None:
        """Return the first jobs in line, [] to rest, None to end."""
        with self._mutex:
            self._changed.wait_for(lambda: self._line or self._nudged or self._closing, LINGER_S)
            if self._line and not self._closing:
                return [self._line[i] for i in range(min(BATCH, len(self._line)))]
            if self._nudged and not self._closing:
                self._nudged = False
                return []
            self._thread = None
            return None

    def _finish(self, jobs: list[Job]) -> None:
        # First out of the line, then told: whoever was waiting writes in place again at once.
        with self._mutex:
            for _ in jobs:
                if self._line:  # close() may have given up on them
                    self._line.popleft()
            self.pending = len(self._line)
            self._changed.notify_all()
        for job in jobs:
            job.settle()

    def _expire(self) -> None:
        """Fail jobs whose time is over while the database is busy; drop those that are not to be kept."""
        now_s = time.monotonic()
        with self._mutex:
            late = [job for job in self._line if job.deadline_s is not None and job.deadline_s <= now_s]
            drop = {id(job) for job in late if not job.kept}
            if drop:
                self._line = deque(job for job in self._line if id(job) not in drop)
                self.pending = len(self._line)
            for job in late:
                job.deadline_s = None
            self._changed.notify_all()
        for job in late:
            job.fail(self._busy())
