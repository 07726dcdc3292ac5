"""One SQLite file, written in place when it is free and by a thread when it is not, so that no caller stalls.

WAL with synchronous=NORMAL: a commit survives kill -9; a power cut may lose the last moments. The commit of a row takes about
12 microseconds, so it is done where it is asked for; when another process holds the lock, or jobs wait already, it is queued.
Checkpoints, which wait for the disk, are the thread's.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from nbllm.core.ports import Written
from nbllm.errors import StorageError
from nbllm.storage.connections import LOG_BYTES, Connections
from nbllm.storage.faults import Fault, OnTrouble, Troubles, fault_of
from nbllm.storage.home import Home
from nbllm.storage.lifetimes import Lock, remember
from nbllm.storage.opening import Migration
from nbllm.storage.reading import Reader
from nbllm.storage.together import Together
from nbllm.storage.transactions import Rider, Transactions
from nbllm.storage.writer import Job, Many, Writer

T = TypeVar("T")

ROW_WAIT_S = 1.0
"""How long a caller may wait for a queued row before it goes on without; the row stays queued."""
RIDE_S = 0.02
"""How long a statement may wait for another write to be committed with."""
CHECKPOINT_PAGES = 1000
_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class Database:
    """One file in a home. Safe for threads and forks; shared with other processes unless the home is on a network.

    migrations: numbered by their place, never rewritten; PRAGMA user_version says how many were done. prepared: called before the
    file is opened. opened: called with each new writing connection, after the migrations. on_trouble: told once of each kind of
    trouble, in words for the user; it must not use the database. log_bytes: see LOG_BYTES. What the disk refuses to write is in the
    write's future as a StorageError; reads raise StorageError. Where the home itself cannot be used, both raise HomeUnusable.
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
        log_bytes: int = LOG_BYTES,
    ) -> None:
        self._home = home
        self._filename = filename
        self._files = Connections(home, filename, migrations, prepared=prepared, opened=opened, log_bytes=log_bytes)
        self._troubles = Troubles(lambda: self.path, on_trouble)
        self._closed = False
        self.begin_anew_in_child()
        remember(self)
        home.tenants.add(self)
        _databases.add(self)

    def begin_anew_in_child(self) -> None:
        """Hold nothing: at birth, and in a forked child, where all of it is the parent's."""
        self._files.leave_to_the_parent()
        self._transactions = Transactions(self._files, self._troubles, self._wrote)
        self._lock, self._riders = self._transactions.lock, self._transactions.riders
        self._reader = Reader(self._files, self._transactions, self._troubles)
        self._checkpoint_lock = threading.Lock()
        self._writer = Writer(f"nbllm-{self._filename}", self._transactions.commit, self._checkpoint, self._troubles.busy)
        self._together = Together(self._home.is_crowded, self._may_write_in_place, self._transactions, self._queue)
        self._dirty_pages = 0
        self._empty_log = False
        self._lands_at_s = 0.0

    @property
    def degraded(self) -> str | None:
        """What is wrong just now, None for nothing."""
        return self._troubles.degraded

    @property
    def dropped(self) -> int:
        """How many riders were given up since the start; their writer may want to know."""
        return self._transactions.dropped

    @property
    def place(self) -> Path:
        """Where the file is, whether its home can be used or not."""
        return self._home.path / self._filename

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
                self._transactions.run(Job(lambda con: _no_result(con.execute(sql, parameters))))
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
            self._transactions.run(job)
            self._wrote(pages)
        except (sqlite3.Error, StorageError) as exc:
            return self._troubled(job, exc)
        else:
            result: T = job.result
            return result
        finally:
            self._lock.release()

    def execute_together(self, sql: str, parameters: Sequence[Any]) -> Written:
        """Commit one statement with those of other calls, where several write at once on one event loop; else at once.

        The future of a statement that goes together is that of the loop's next turn; see Written.
        """
        return self._execute_with(self._together.loop(), sql, parameters)

    def execute_in_turn(self, sql: str, parameters: Sequence[Any]) -> Written:
        """Commit one statement with all that come in this turn of the caller's loop, where it has one."""
        return self._execute_with(self._together.loop(waits=True), sql, parameters)

    def _execute_with(self, loop: asyncio.AbstractEventLoop | None, sql: str, parameters: Sequence[Any]) -> Written:
        if loop is None:
            return self.execute(sql, parameters)
        job = Job(lambda con: _no_result(con.execute(sql, parameters)), None, time.monotonic() + ROW_WAIT_S)
        return self._together.add(job, loop)

    def ride(self, sql: str, parameters: Sequence[Any]) -> Future[None] | None:
        """Commit one statement together with the next write; see ride_with."""
        return self.ride_with(lambda con: con.execute(sql, parameters))

    def ride_with(self, rider: Rider) -> Future[None] | None:
        """Commit what a rider does together with the next write, RIDE_S later at most: for what is of no use before that write.

        A commit writes whole pages, so one for two rows costs little more than one for one. Reads of this process see riders.
        Where no event loop can see to the time, the statement is committed at once.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 - public but for its name; the public one raises
        if loop is None or self._writer.pending or self._closed or self._home.network or self._troubles.degraded is not None:
            return self.write(lambda con: _no_result(rider(con)))
        self._riders.append(rider)
        now_s = time.monotonic()
        if now_s >= self._lands_at_s:  # one timer at a time; one whose loop was closed meanwhile is replaced
            self._lands_at_s = now_s + RIDE_S
            loop.call_later(RIDE_S, self._land)
        return None

    def _land(self) -> None:
        """Commit riders that no other write has taken along, and what was to go together in this loop's next turn."""
        if self._together.here:
            self._together.turn()
        if self._riders:
            self.write(_no_result)

    def defer(self, run: Callable[[sqlite3.Connection], T], *, then: Callable[[T], None] | None = None) -> Future[T]:
        """Have the thread commit `run`; then: see write."""
        return self._queue(Job(run, then))

    async def run(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        wait_s: float,
        pages: int = 1,
        kept: bool = False,
        many: Many | None = None,
        asked: Any = None,
    ) -> T:
        """Commit `run`, with what other calls write at the same time, and return its result.

        Raises StorageError after `wait_s` of a locked database. Nothing is written then, unless it is `kept`: then it will be,
        once the lock is free. many, asked: what does the same for several at once; see Job.
        """
        loop = self._together.loop()
        if loop is None:
            done = self.write(run, wait_s=wait_s, kept=kept, pages=pages)
            return await asyncio.wrap_future(done) if isinstance(done, Future) else done
        job = Job(run, None, time.monotonic() + wait_s, kept, many, asked)
        late = await self._together.add(job, loop)
        result: T = job.result if late is None else await asyncio.wrap_future(late)
        return result

    def run_and_wait(self, run: Callable[[sqlite3.Connection], T], *, wait_s: float = 5.0) -> T:
        """Do the same for a caller that may block."""
        done = self.write(run, wait_s=wait_s, kept=False)
        return done.result() if isinstance(done, Future) else done

    def _may_write_in_place(self) -> bool:
        """Take the lock, unless jobs wait, another thread is slow to let go, or each commit goes over a network."""
        return not (self._writer.pending or self._home.network or self._closed) and self._transactions.take_lock()

    def _queue(self, job: Job) -> Future[Any]:
        future = job.future  # made before the thread can see the job
        if self._closed:
            job.fail(StorageError(f"{self._filename} is closed.", hint="Make a new Client."))
        else:
            job.deadline_s = job.deadline_s or time.monotonic() + ROW_WAIT_S
            self._writer.put(job)
        return future

    def _troubled(self, job: Job, exc: Exception) -> Future[Any]:
        """What becomes of a job that could not be done in place: queued when busy or damaged, else failed."""
        if isinstance(exc, StorageError) or fault_of(exc) not in {Fault.BUSY, Fault.DAMAGED}:  # type: ignore[arg-type]
            job.fail(self._troubles.error(exc))
            return job.future
        return self._queue(job)

    def _wrote(self, pages: int) -> None:
        if self._troubles.degraded is not None:
            self._troubles.degraded = None
        self._dirty_pages += pages
        if self._dirty_pages >= CHECKPOINT_PAGES and not self._home.network:
            self._dirty_pages = 0
            self._writer.nudge()

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
        """Return what `run` reads, riders included. Raises StorageError, HomeUnusable."""
        if self._riders or self._together.here:
            self._land()
        return self._reader.read(run)

    def first_row(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the first row of a short question, None for none; riders included. Raises as read does."""
        if self._riders or self._together.here:
            self._land()
        return self._reader.first_row(sql, parameters)

    def flush(self, timeout_s: float = ROW_WAIT_S) -> bool:
        """Wait until what was queued is committed; False when it took too long."""
        self._land()
        return not self._writer.pending or self._writer.wait_empty(timeout_s)

    def flush_all(self) -> None:
        """Commit what rides on every Database of this process on the same file, another client's too. Does not wait."""
        for database in list(_databases):
            if database.place == self.place:
                database.flush(0.0)

    # ------------------------------------------------------------------------------------------------ opening and closing

    def close(self) -> None:
        """Commit what waits, end the thread, let go of the file. What is written later fails."""
        self._together.turn()
        self._land()
        self._closed = True
        self._writer.close(5.0)
        with self._reader.lock, self._lock:
            self._files.close()

    def begin_anew(self) -> None:
        """Change from a file that is gone to a new one. What waits goes there too."""
        with self._reader.lock, self._lock:
            if self._files.writing is not None:
                self._files.let_go()
                with suppress(sqlite3.Error, StorageError):  # told by whoever uses it
                    self._files.open()

    def locks(self) -> Sequence[Lock]:
        """See Lasting."""
        return (self._checkpoint_lock, self._reader.lock, self._lock)


def _no_result(_: object) -> None:
    return None
