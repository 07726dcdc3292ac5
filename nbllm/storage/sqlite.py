"""One SQLite file, written in place when it is free and by a thread when it is not, so that no caller stalls.

WAL with synchronous=NORMAL: a commit survives kill -9; a power cut may lose the last moments. The commit of a row takes about
12 microseconds, so it is done where it is asked for; when another process holds the lock, or jobs wait already, it is queued.
Checkpoints, which wait for the disk, are the thread's.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nbllm.errors import StorageError
from nbllm.storage.connections import Connections
from nbllm.storage.faults import Fault, fault_of, storage_error
from nbllm.storage.home import Home
from nbllm.storage.opening import Migration
from nbllm.storage.writer import Job, Writer

T = TypeVar("T")

OnTrouble = Callable[[str], object]

ROW_WAIT_S = 1.0
"""How long a caller may wait for a queued row before it goes on without; the row stays queued."""
LOCK_WAIT_S = 0.001
"""How long a write in place waits for another thread's commit before it is queued."""
RIDE_S = 0.02
"""How long a statement may wait for another write to be committed with."""
CHECKPOINT_PAGES = 1000
FORK_WAIT_S = 1.0
"""How long a fork waits for what is under way in one database."""
READ_WAITS_S = (0.001, 0.003)
"""Pauses of a read in a file that another process is just opening or closing; otherwise WAL never makes a reader wait."""


class Database:
    """One file in a home. Safe for threads and forks; shared with other processes unless the home is on a network.

    migrations: numbered by their place, never rewritten; PRAGMA user_version says how many were done. prepared: called before the
    file is opened. opened: called with each new writing connection, after the migrations. on_trouble: told once of each kind of
    trouble, in words for the user; it must not use the database. What the disk refuses to write is in the write's future as a
    StorageError; reads raise StorageError. Where the home itself cannot be used, both raise HomeUnusable.
    """

    def __init__(
        self,
        home: Home,
        filename: str,
        *,
        migrations: Sequence[Migration],
        prepared: Callable[[], None] | None = None,
        opened: Callable[[sqlite3.Connection], None] | None = None,
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self.degraded: str | None = None
        """What is wrong just now, None for nothing."""
        self._home = home
        self._filename = filename
        self._files = Connections(home, filename, migrations, prepared=prepared, opened=opened)
        self._on_trouble = on_trouble
        self._told: set[Fault | str] = set()
        self._closed = False
        self._begin_anew()
        _databases.add(self)

    def _begin_anew(self) -> None:
        """Hold nothing: at birth, and in a forked child, where all of it is the parent's."""
        self._lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
        self._held: list[Callable[[], None]] = []
        self._writer = Writer(f"nbllm-{self._filename}", self._commit, self._checkpoint, self._busy)
        self._dirty_pages = 0
        self._empty_log = False
        self._lands_at_s = 0.0
        self._riders: deque[tuple[str, Sequence[Any]]] = deque()

    @property
    def path(self) -> Path:
        """Where the file is. Raises HomeUnusable."""
        return self._files.path

    # ------------------------------------------------------------------------------------------------ writing

    def execute(self, sql: str, parameters: Sequence[Any]) -> Future[None] | None:
        """Commit one statement; None when that is done, else the future of it."""
        if not self._may_write_in_place():
            return self._queue(Job(lambda con: _no_result(con.execute(sql, parameters))))
        try:
            if self._riders:
                self._transact(Job(lambda con: _no_result(con.execute(sql, parameters))))
            else:
                con = self._files.writing or self._files.open()
                con.execute(sql, parameters)
        except (sqlite3.Error, StorageError) as exc:
            return self._troubled(Job(lambda con: _no_result(con.execute(sql, parameters))), exc)
        else:
            self._wrote(1)
            return None
        finally:
            self._lock.release()

    def write(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        then: Callable[[T], None] | None = None,
        wait_s: float = ROW_WAIT_S,
        kept: bool = True,
        pages: int = 1,
    ) -> Future[T] | T:
        """Commit `run` as one transaction; return its result when that is done in place, else the future of it.

        then: called with the result after the commit, under the database's lock. wait_s, kept: see Job. pages: how much it writes,
        roughly. What `run` raises on its own account is raised here, or held by the future, and nothing is written.
        """
        job = Job(run, then, time.monotonic() + wait_s, kept)
        if not self._may_write_in_place():
            return self._queue(job)
        try:
            self._transact(job)
            self._wrote(pages)
        except (sqlite3.Error, StorageError) as exc:
            return self._troubled(job, exc)
        else:
            result: T = job.result
            return result
        finally:
            self._lock.release()

    def ride(self, sql: str, parameters: Sequence[Any]) -> Future[None] | None:
        """Commit one statement together with the next write, RIDE_S later at most: for what is of no use before that write.

        A commit writes whole pages, so one for two rows costs little more than one for one. Reads of this process see riders.
        Where no event loop can see to the time, the statement is committed at once.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.execute(sql, parameters)
        if self._writer.pending or self._closed or self._home.network:
            return self.execute(sql, parameters)
        self._riders.append((sql, parameters))
        now_s = time.monotonic()
        if now_s >= self._lands_at_s:  # one timer at a time; one whose loop was closed meanwhile is replaced
            self._lands_at_s = now_s + RIDE_S
            loop.call_later(RIDE_S, self._land)
        return None

    def _land(self) -> None:
        """Commit riders that no other write has taken along."""
        if self._riders:
            self.write(_no_result)

    def one(self, sql: str, parameters: Sequence[Any]) -> Future[Any] | Any:
        """Commit one statement and return its first row, None without one; a future of it when the database is busy."""

        def run(con: sqlite3.Connection) -> Any:
            rows = con.execute(sql, parameters).fetchall()
            return rows[0] if rows else None

        if self._riders or not self._may_write_in_place():
            return self.write(run, kept=False)
        try:
            row = run(self._files.writing or self._files.open())
        except (sqlite3.Error, StorageError) as exc:
            return self._troubled(Job(run, None, time.monotonic() + ROW_WAIT_S, kept=False), exc)
        else:
            self._wrote(1)
            return row
        finally:
            self._lock.release()

    def defer(self, run: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Have the thread commit `run`."""
        return self._queue(Job(run))

    async def run(self, run: Callable[[sqlite3.Connection], T], *, wait_s: float, pages: int = 1, kept: bool = False) -> T:
        """Commit `run` and return its result; raises StorageError after `wait_s` of a locked database.

        Nothing is written then, unless it is `kept`: then it will be, once the lock is free.
        """
        done = self.write(run, wait_s=wait_s, kept=kept, pages=pages)
        return await asyncio.wrap_future(done) if isinstance(done, Future) else done

    def run_and_wait(self, run: Callable[[sqlite3.Connection], T], *, wait_s: float = 5.0) -> T:
        """Do the same for a caller that may block."""
        done = self.write(run, wait_s=wait_s, kept=False)
        return done.result() if isinstance(done, Future) else done

    def _may_write_in_place(self) -> bool:
        """Take the lock, unless jobs wait, another thread is slow to let go, or each commit goes over a network."""
        lock = self._lock
        if self._writer.pending or self._home.network or self._closed or _is_mine(lock):
            return False
        try:
            return lock.acquire(blocking=False) or lock.acquire(timeout=LOCK_WAIT_S)
        except BaseException:
            if _is_mine(lock):  # Ctrl-C came between the lock and whoever took it
                lock.release()
            raise

    def _queue(self, job: Job) -> Future[Any]:
        if self._closed:
            job.fail(StorageError(f"{self._filename} is closed.", hint="Make a new Client."))
        else:
            job.deadline_s = job.deadline_s or time.monotonic() + ROW_WAIT_S
            self._writer.put(job)
        return job.future

    def _troubled(self, job: Job, exc: Exception) -> Future[Any]:
        """What becomes of a job that could not be done in place: queued when busy or damaged, else failed."""
        if isinstance(exc, StorageError) or fault_of(exc) not in {Fault.BUSY, Fault.DAMAGED}:  # type: ignore[arg-type]
            job.fail(self._trouble(exc))
            return job.future
        return self._queue(job)

    def _transact(self, job: Job) -> None:
        con = self._files.writing or self._files.open()
        con.execute("BEGIN IMMEDIATE")
        taken: list[tuple[str, Sequence[Any]]] = []
        try:
            while self._riders:  # other threads may add to them meanwhile
                taken.append(self._riders.popleft())
                self._ridden(con, *taken[-1])
            job.result = job.run(con)
            con.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite has rolled back already where the error was its own
                con.execute("ROLLBACK")
            self._riders.extendleft(reversed(taken))
            raise
        if job.then is not None:
            job.then(job.result)

    @staticmethod
    def _ridden(con: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> None:
        # A row that the file refuses for good must not fail every write that it rides with; a full disk fails them anyway.
        with suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):
            con.execute(sql, parameters)

    def _wrote(self, pages: int) -> None:
        if self.degraded is not None:
            self.degraded = None
        self._dirty_pages += pages
        if self._dirty_pages >= CHECKPOINT_PAGES and not self._home.network:
            self._dirty_pages = 0
            self._writer.nudge()

    # ------------------------------------------------------------------------------------------------ on the thread

    def _commit(self, batch: list[Job]) -> int:
        """See jobs through: all in one transaction, or one by one when one of them fails. Returns how many; 0: busy."""
        with self._lock:
            try:
                self._transact(Job(lambda con: _run_all(batch, con)))
            except sqlite3.Error as exc:
                if fault_of(exc) is Fault.BUSY:
                    return 0
            except Exception:  # noqa: S110 - found out, job by job, below
                pass
            else:
                for job in batch:
                    if job.then is not None:
                        job.then(job.result)
                self._wrote(len(batch))
                return len(batch)
            for done, job in enumerate(batch):
                if not self._commit_one(job):
                    return done
            return len(batch)

    def _commit_one(self, job: Job) -> bool:
        """Do one job, or note its error; False when the database is busy. A damaged file is set aside and begun anew, once."""
        for again in (True, False):
            try:
                self._transact(job)
            except sqlite3.Error as exc:
                fault = fault_of(exc)
                if fault is Fault.BUSY:
                    return False
                if fault is Fault.DAMAGED and again:
                    self._set_aside()
                    continue
                job.error = self._trouble(exc)
            except Exception as exc:
                job.error = self._trouble(exc) if isinstance(exc, StorageError) else exc
            else:
                self._wrote(1)
            return True
        return True

    def _checkpoint(self) -> None:
        empty, self._empty_log = self._empty_log, False
        with self._checkpoint_lock:
            self._files.checkpoint(self._lock, empty=empty)

    def empty_log_soon(self) -> None:
        """Have the thread move the whole WAL into the file and empty it: what was deleted is not to stay there."""
        self._empty_log = True
        self._writer.nudge()

    # ------------------------------------------------------------------------------------------------ reading

    def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `run` reads, on a connection that sees only what is committed. Raises StorageError."""
        self._land()
        for wait_s in (*READ_WAITS_S, None):
            try:
                with self._read_lock:
                    return run(self._files.reading or self._open_reader())
            except sqlite3.Error as exc:
                fault = fault_of(exc)
                if wait_s is None or fault not in {Fault.BUSY, Fault.DAMAGED}:
                    raise self._trouble(exc) from exc
                if fault is Fault.DAMAGED:
                    with self._lock:
                        self._set_aside()
            time.sleep(wait_s)
        raise AssertionError  # the last round returns or raises

    def flush(self, timeout_s: float = ROW_WAIT_S) -> bool:
        """Wait until what was queued is committed; False when it took too long."""
        self._land()
        return not self._writer.pending or self._writer.wait_empty(timeout_s)

    # ------------------------------------------------------------------------------------------------ opening and closing

    def _open_reader(self) -> sqlite3.Connection:
        if self._files.writing is None:
            with self._lock:
                if self._files.writing is None:
                    self._files.open()
        return self._files.open_reader()

    def _set_aside(self) -> None:
        """Let go of a damaged file and rename it, under the lock."""
        self._riders.clear()
        name = self._files.set_aside()
        if name:
            self._tell("aside:" + name, f"{self.path} was damaged. It is kept as {name}, and a new one was begun.")

    def close(self) -> None:
        """Commit what waits, end the thread, let go of the file. What is written later fails."""
        self._land()
        self._closed = True
        self._writer.close(5.0)
        with self._read_lock, self._lock:
            self._files.close()

    def _before_fork(self) -> None:
        """Let nothing be under way: SQLite's notes of who holds a lock are copied, and in the child nobody would let go of it."""
        for lock in (self._checkpoint_lock, self._read_lock, self._lock):
            if lock.acquire(timeout=FORK_WAIT_S):
                self._held.append(lock.release)

    def _after_fork_in_parent(self) -> None:
        while self._held:
            self._held.pop()()

    def _after_fork(self) -> None:
        self._files.leave_to_the_parent()
        self._begin_anew()

    # ------------------------------------------------------------------------------------------------ trouble

    def _busy(self) -> StorageError:
        return self._trouble(storage_error(self.path, Fault.BUSY))

    def _trouble(self, exc: Exception) -> StorageError:
        """Remember what is wrong, tell the user once, and return it as a StorageError."""
        fault: Fault | str = str(exc)
        if isinstance(exc, sqlite3.Error):
            fault = fault_of(exc)
            exc = storage_error(self.path, fault, exc)
        error = exc if isinstance(exc, StorageError) else StorageError(str(exc))
        self.degraded = error.summary
        self._tell(fault, str(error))
        return error

    def _tell(self, kind: Fault | str, text: str) -> None:
        if kind not in self._told and self._on_trouble is not None:
            self._told.add(kind)
            self._on_trouble(text)


def _is_mine(lock: Any) -> bool:
    """Whether this thread holds an RLock. threading.Condition asks it the same way."""
    return bool(lock._is_owned())  # noqa: SLF001 - see above


def _no_result(_: object) -> None:
    return None


def _run_all(jobs: list[Job], con: sqlite3.Connection) -> None:
    for job in jobs:
        job.result = job.run(con)


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


# The hooks belong to the class; they are outside only because the system calls functions.


def _before_fork() -> None:
    for database in list(_databases):
        database._before_fork()  # noqa: SLF001


def _after_fork_in_parent() -> None:
    for database in list(_databases):
        database._after_fork_in_parent()  # noqa: SLF001


def _after_fork() -> None:
    for database in list(_databases):
        database._after_fork()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


@atexit.register
def _flush_all() -> None:
    """Commit what waits before the interpreter ends its daemon threads."""
    for database in list(_databases):
        database.flush(2.0)
