"""Transactions on the writing connection: one job, or a batch of them, with the statements that ride along."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nbllm.errors import StorageError
from nbllm.storage.connections import Connections
from nbllm.storage.faults import LASTING, Fault, Troubles, fault_of
from nbllm.storage.writer import Job, Many, Refused

_TRIES = 2
"""A disk that refused so many jobs of a batch, one after the other, refuses the rest of it."""
LOCK_WAIT_S = 0.001
"""How long a write in place waits for another thread's commit before it is queued."""
Rider = Callable[[sqlite3.Connection], object]


class Transactions:
    """What is committed to one file, by any thread.

    lock: held by whoever uses the writing connection. riders: statements that the next transaction takes along; any thread may
    append. wrote: called after a commit with the number of pages, roughly.
    """

    def __init__(self, files: Connections, troubles: Troubles, wrote: Callable[[int], None]) -> None:
        self.lock = threading.RLock()
        self.riders: deque[Rider] = deque()
        self.dropped = 0
        """How many riders were given up, because the disk was full or the file set aside."""
        self._files = files
        self._troubles = troubles
        self._wrote = wrote

    def take_lock(self, wait_s: float = LOCK_WAIT_S) -> bool:
        """Take the lock for a write in place; False when another thread is slow to let go, or this one holds it already.

        wait_s: 0 takes it only where nobody holds it.
        """
        if _is_mine(self.lock):
            return False
        try:
            return self.lock.acquire(blocking=False) or (wait_s > 0 and self.lock.acquire(timeout=wait_s))
        except BaseException:
            if _is_mine(self.lock):  # Ctrl-C came between the lock and whoever took it
                self.lock.release()
            raise

    def run(self, job: Job) -> None:
        """Commit one job, and what rides, under the lock. Raises what it raises, with nothing written."""
        con = self._files.writing or self._files.open()
        con.execute("BEGIN IMMEDIATE")
        riders = self.riders
        taken: list[Rider] = []
        try:
            while riders:  # other threads may add to them meanwhile
                taken.append(riders.popleft())
                _ridden(con, taken[-1])
            job.result = job.run(con)
            con.execute("COMMIT")
        except BaseException as exc:
            with suppress(sqlite3.Error):  # SQLite has rolled back already where the error was its own
                con.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error) and fault_of(exc) in LASTING:
                self.dropped += len(taken)  # like the job itself: to keep them would make every later write slower
            else:
                riders.extendleft(reversed(taken))
            raise
        if job.then is not None:
            job.then(job.result)

    def commit(self, batch: list[Job]) -> int:
        """See jobs through: all in one transaction, or one by one when one of them fails. Returns how many; 0: busy."""
        with self.lock:
            try:
                self.run(Job(lambda con: _run_all(batch, con)))
            except Exception as exc:
                busy = isinstance(exc, sqlite3.Error) and fault_of(exc) is Fault.BUSY
                return 0 if busy else self._one_by_one(batch)  # whose error it was is found out job by job
            for job in batch:
                if isinstance(job.result, Refused):
                    job.error = job.result.error
                    continue
                if job.then is not None:
                    job.then(job.result)
            self._wrote(len(batch))
            return len(batch)

    def _one_by_one(self, batch: list[Job]) -> int:
        given_up = 0
        for done, job in enumerate(batch):
            if given_up >= _TRIES:
                job.error = batch[done - 1].error
                continue
            before = self._troubles.lasting
            if not self._commit_one(job):
                return done
            given_up = given_up + 1 if self._troubles.lasting > before else 0
        return len(batch)

    def _commit_one(self, job: Job) -> bool:
        """Do one job, or note its error; False when the database is busy. A damaged file is set aside and begun anew, once."""
        for again in (True, False):
            try:
                self.run(job)
            except sqlite3.Error as exc:
                fault = fault_of(exc)
                if fault is Fault.BUSY:
                    return False
                if again and fault is Fault.DAMAGED:
                    self.set_aside()
                    continue
                job.error = self._troubles.error(exc)
            except Exception as exc:
                job.error = self._troubles.error(exc) if isinstance(exc, StorageError) else exc
            else:
                self._wrote(1)
            return True
        return True

    def set_aside(self) -> None:
        """Let go of a damaged file and rename it, under the lock."""
        self.dropped += len(self.riders)
        self.riders.clear()
        name = self._files.set_aside()
        if name:
            text = f"{self._files.path} was damaged. It is kept as {name}, and a new one was begun."
            self._troubles.tell("aside:" + name, text)


def _is_mine(lock: Any) -> bool:
    """Whether this thread holds an RLock. threading.Condition asks it the same way."""
    return bool(lock._is_owned())  # noqa: SLF001 - see above


def _ridden(con: sqlite3.Connection, rider: Rider) -> None:
    # A row that the file refuses for good must not fail every write that it rides with; a full disk fails them anyway.
    try:  # noqa: SIM105 - suppress() is three calls of Python, and each call has riders
        rider(con)
    except (sqlite3.IntegrityError, sqlite3.InterfaceError):
        pass


def _run_all(jobs: list[Job], con: sqlite3.Connection) -> None:
    """Run jobs in one go where they are of a kind, each plain one after all that came before it: it may undo one of them."""
    kinds: dict[Many, list[Job]] = {}
    for job in jobs:
        if job.many is None:
            _run_alike(kinds, con)
            job.result = job.run(con)
        else:
            kinds.setdefault(job.many, []).append(job)
    _run_alike(kinds, con)


def _run_alike(kinds: dict[Many, list[Job]], con: sqlite3.Connection) -> None:
    for many, alike in kinds.items():
        for job, result in zip(alike, many(con, [job.asked for job in alike]), strict=True):
            job.result = result
    kinds.clear()
