"""The vector index of one home: rows in vectors.db, which are the truth, and what this process has of them in memory.

Memory is only ever filled from committed rows, and every row that is handed out was read from the file a moment before: so a row
counts once it is committed, whichever process wrote it, and one that was deleted is found by nobody. docs/decisions/0013 says why
there is no library for it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

from numpy.typing import ArrayLike

from nbllm.core.embedding import unit_vector
from nbllm.core.ports import AT_LEAST, Neighbour, VectorRow, VectorStats
from nbllm.crew import Crew
from nbllm.errors import StorageError
from nbllm.storage import vector_rows
from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home
from nbllm.storage.lifetimes import Lock, remember
from nbllm.storage.sqlite import Database
from nbllm.storage.vector_files import BlockFiles
from nbllm.storage.vector_loaded import Loaded
from nbllm.storage.vector_partition import Partition
from nbllm.storage.vector_rows import DELETED_AT_ONCE, Dropped, State

T = TypeVar("T")

DEFAULT_ROWS = 1_000_000
DEFAULT_MEMORY_BYTES = 1_000_000_000
INLINE_ROWS = 131_072
"""A search through no more takes about half a millisecond, and handing it to a thread would cost half as much again."""
ADD_WAIT_S = 1.0
LOG_BYTES = 64 * 1024 * 1024
"""A row is seven pages: with less, rows that come without a pause would wait for the disk every 300."""
_TRIM_EVERY = 1024
_FEW = 8
"""So many keys are dropped in place; more in a thread."""


class SqliteVectors:
    """The VectorIndex of one home. Safe for threads, forks and several processes; nothing is opened before the first use.

    executor: makes the threads for what takes long (large searches, loading, files). limit_rows: the rows that came first go first
    when there are more. memory_bytes: partitions that were not used for longest are let go of when all take more; they are read
    again when they are needed. patience_s: how long a search waits for its partition to be loaded (None: until it is); then it
    raises StorageError, and the loading goes on. on_trouble: told once of each kind of trouble.
    """

    def __init__(
        self,
        home: Home,
        *,
        executor: Callable[[], Executor] | None = None,
        limit_rows: int = DEFAULT_ROWS,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        patience_s: float | None = None,
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self._home = home
        self._make_executor = executor or (lambda: Crew(2, "nbllm-vectors"))
        self._limit_rows = limit_rows
        self._memory_bytes = memory_bytes
        self._patience_s = patience_s
        self._db = Database(
            home,
            "vectors.db",
            migrations=vector_rows.MIGRATIONS,
            opened=vector_rows.opened,
            on_trouble=on_trouble,
            log_bytes=LOG_BYTES,
        )
        self._files = BlockFiles(home)
        self._closed = self._stopping = False
        self._added = 0
        self.begin_anew_in_child()
        remember(self)

    def begin_anew_in_child(self) -> None:
        """Hold nothing: at birth, and in a forked child, where threads and locks are the parent's."""
        self._loaded = Loaded(self._read, self._files, self._memory_bytes)
        self._loading: dict[str, Future[Partition]] = {}
        self._guard = threading.Lock()
        self._executor: Executor | None = None

    def locks(self) -> Sequence[Lock]:
        """See Lasting: what is under way in memory is let go of in a child."""
        return ()

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - see Lasting
        """Nothing waits here."""
        return True

    @property
    def degraded(self) -> str | None:
        """What is wrong with the file just now, None for nothing."""
        return self._db.degraded

    # ------------------------------------------------------------------------------------------------ adding and finding

    async def add(self, row: VectorRow) -> None:
        """Keep a row; see VectorIndex."""
        self._refuse_when_closed()
        vector = unit_vector(row.vector)
        await self._db.run(lambda con: vector_rows.add(con, row, vector), wait_s=ADD_WAIT_S, pages=6, kept=True)
        self._added += 1
        if self._added % _TRIM_EVERY == 0:
            self._in_thread(self._trim)

    async def nearest(self, partition: str, vector: ArrayLike, k: int = 8, *, at_least: float = AT_LEAST) -> Sequence[Neighbour]:
        """Return the nearest rows, best first; see VectorIndex."""
        self._refuse_when_closed()
        query = unit_vector(vector)
        now = self._state(partition)
        if now is None or k < 1:
            return []
        unit_vector(query, dimensions=now.dimensions)
        here = self._loaded.get(partition, now) or await self._load(partition, now)
        if here.rows <= INLINE_ROWS and here.catch_up(now, wait=False):
            found = here.nearest(query, k, at_least)
        else:
            found = await self._wait(lambda: self._loaded.load(partition, now).nearest(query, k, at_least))
        if self._loaded.wants_care(partition):
            self._in_thread(lambda: self._loaded.care(partition))
        return found

    async def _load(self, partition: str, now: State) -> Partition:
        """Have a partition loaded, once for all who ask; it goes on when nobody waits any longer."""
        loading = self._loading.get(partition)
        if loading is None or loading.done():
            loading = self._loading[partition] = self._in_thread(lambda: self._loaded.load(partition, now))
        waiting = asyncio.wrap_future(loading)
        waiting.add_done_callback(_looked_at)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), self._patience_s)
        except TimeoutError:
            raise StorageError(
                f"The index of this kind of question was not loaded within {self._patience_s:g} s.",
                hint="It is being loaded; a later call finds it.",
            ) from None
        finally:
            if loading.done():
                self._loading.pop(partition, None)

    def _state(self, partition: str) -> State | None:
        return self._db.read(lambda con: vector_rows.state(con, partition))

    # ------------------------------------------------------------------------------------------------ forgetting

    async def drop(self, *keys: str) -> int:
        """Forget the rows with these keys; see VectorIndex."""
        self._refuse_when_closed()
        if len(keys) > _FEW:
            return await self._wait(lambda: self._drop_many(keys))
        gone = await self._db.run(lambda con: vector_rows.drop_keys(con, keys), wait_s=ADD_WAIT_S, pages=4 * len(keys))
        return await self._wait(lambda: self._forget(gone)) if gone else 0

    def _drop_many(self, keys: Sequence[str]) -> int:
        count = 0
        for begin in range(0, len(keys), DELETED_AT_ONCE):
            part = keys[begin : begin + DELETED_AT_ONCE]
            count += self._forget(self._db.run_and_wait(lambda con, part=part: vector_rows.drop_keys(con, part)))  # type: ignore[misc]
        return count

    async def drop_partition(self, partition: str) -> int:
        """Forget a partition; see VectorIndex."""
        return await self._leave(partition)

    async def clear(self) -> int:
        """Forget everything; see VectorIndex."""
        return await self._leave(None)

    async def _leave(self, partition: str | None) -> int:
        self._refuse_when_closed()

        def work() -> int:
            count = self._db.run_and_wait(lambda con: vector_rows.leave(con, partition))
            self._loaded.forget(partition)
            self._forget_lost()
            return count

        return await self._wait(work)

    def _forget_lost(self) -> None:
        """Delete rows and files of partitions that were dropped, by this process or by one that was killed meanwhile."""
        for number in self._db.read(vector_rows.lost):
            while self._forget(self._db.run_and_wait(lambda con, number=number: vector_rows.drop_rows_of(con, number))):  # type: ignore[misc]
                pass
        self._files.clear(keep=self._db.read(vector_rows.numbers))

    async def drop_older(self, created_before: float) -> int:
        """Forget old rows; see VectorIndex."""
        self._refuse_when_closed()

        def work() -> int:
            total = 0
            while count := self._forget(self._db.run_and_wait(lambda con: vector_rows.drop_older(con, created_before))):
                total += count
            return total

        return await self._wait(work)

    def _forget(self, gone: Dropped) -> int:
        """Let memory and files follow what was deleted, and return how many rows that was."""
        if not gone:
            return 0
        self._files.forget_rows(gone)
        for number, ids in gone.items():
            self._loaded.kill(number, ids)
        self._db.empty_log_soon()
        return sum(map(len, gone.values()))

    def _trim(self) -> None:
        """Keep to the limit of rows."""
        over = self._db.read(lambda con: vector_rows.count(con, None)) - self._limit_rows
        while over > 0 and (gone := self._forget(self._db.run_and_wait(lambda con: vector_rows.drop_first(con, self._limit_rows)))):
            over -= gone
        self._loaded.let_go()

    # ------------------------------------------------------------------------------------------------ looking

    async def keys(self, *, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, str]]:
        """Return numbers and keys; see VectorIndex."""
        self._refuse_when_closed()
        return await self._wait(lambda: self._db.read(lambda con: vector_rows.keys_after(con, after, limit)))

    async def count(self, partition: str | None = None) -> int:
        """Return how many rows there are."""
        self._refuse_when_closed()
        return await self._wait(lambda: self._db.read(lambda con: vector_rows.count(con, partition)))

    def stats(self) -> VectorStats:
        """Return counts and sizes; size_bytes is what the files use."""
        rows, partitions, size_bytes = self._db.read(vector_rows.sizes)
        return VectorStats(
            rows=rows,
            partitions=partitions,
            size_bytes=size_bytes + self._files.size_bytes(),
            memory_bytes=self._loaded.memory_bytes,
            directory=str(self._home.data),
        )

    # ------------------------------------------------------------------------------------------------ threads

    def _in_thread(self, work: Callable[[], T]) -> Future[T]:
        with self._guard:
            if self._executor is None:
                self._executor = self._make_executor()
            return self._executor.submit(work)

    async def _wait(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._in_thread(work))

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StorageError("vectors.db is closed.", hint="Make a new Client.")

    def close(self) -> None:
        """End the threads and let go of memory and file."""
        self._closed = self._stopping = True
        with self._guard:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
            self._stopping = False
            self._loaded.finish()
        self._loaded.forget()
        self._db.close()

    def _read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Read rows for memory; whoever loads many of them stops when the index is closed."""
        if self._stopping:
            raise StorageError("vectors.db is being closed.", hint="Make a new Client.")
        return self._db.read(run)


def _looked_at(waiting: asyncio.Future[Partition]) -> None:
    """Take note of how a loading went for which nobody waits any more: the next search meets the same."""
    if not waiting.cancelled():
        waiting.exception()
