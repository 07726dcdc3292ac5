"""Jobs of several calls on one event loop, committed as one transaction.

A commit costs five times what a row in it does. So where several calls are under way, a job waits for the loop's next turn, and
goes with all that came until then. One call alone never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from nbllm.core.ports import Turn
from nbllm.storage.transactions import Transactions
from nbllm.storage.writer import BATCH, Job


class Together:
    """The jobs that wait for one loop's next turn.

    crowd: whether several calls are under way. lock: takes the database's lock, or says that it may not be written in place just
    now. queue: hands a job to the writer thread.
    """

    def __init__(
        self, crowd: Callable[[], bool], lock: Callable[[], bool], transactions: Transactions, queue: Callable[[Job], Future[Any]]
    ) -> None:
        self._crowd = crowd
        self._lock = lock
        self._transactions = transactions
        self._queue = queue
        self._waiting: deque[tuple[Job, Turn]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._planned = False

    def loop(self, *, waits: bool = False) -> asyncio.AbstractEventLoop | None:
        """Return the loop whose next turn a job of the caller should wait for; None: it should not.

        waits: it would even where no crowd is known, because more such jobs may come in this turn.
        """
        loop = asyncio._get_running_loop()  # noqa: SLF001 - public but for its name; the public one raises
        if loop is None:
            return None
        if self._waiting:
            return loop if loop is self._loop else None
        return loop if waits or self._crowd() else None

    @property
    def here(self) -> bool:
        """Whether jobs wait for a turn of the loop that the caller runs on."""
        return bool(self._waiting) and self._loop is asyncio._get_running_loop()  # noqa: SLF001 - see above

    def add(self, job: Job, loop: asyncio.AbstractEventLoop) -> Turn:
        """Let a job wait for the next turn of the loop that `loop` returned."""
        turn: Turn = loop.create_future()
        self._waiting.append((job, turn))
        # Appended first: a turn that another thread takes meanwhile finds it, and one turn too many does no harm.
        if not self._planned:
            self._planned, self._loop = True, loop
            loop.call_soon(self.turn)
        return turn

    def turn(self) -> None:
        """Commit what waits: on the loop's own thread, which no Ctrl-C interrupts half-way, or when that loop runs no more."""
        self._planned = False
        while self._waiting:
            going: list[tuple[Job, Turn]] = []
            while self._waiting and len(going) < BATCH:
                going.append(self._waiting.popleft())
            seen = self._commit([job for job, _ in going])
            for number, (job, turn) in enumerate(going):
                late = None
                if number >= seen:
                    late = self._queue(job)
                elif job.error is not None:
                    late = job.future
                    job.settle()
                self._tell(turn, late)

    def _commit(self, jobs: list[Job]) -> int:
        """See jobs through, in one transaction where that can be; return how many, counted from the first."""
        if not self._lock():
            return 0
        try:
            return self._transactions.commit(jobs)
        finally:
            self._transactions.lock.release()

    def _tell(self, turn: Turn, late: Future[Any] | None) -> None:
        loop = turn.get_loop()
        if loop is asyncio._get_running_loop():  # noqa: SLF001 - see above
            _land(turn, late)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(_land, turn, late)


def _land(turn: Turn, late: Future[Any] | None) -> None:
    if not turn.done():  # its caller may have been cancelled
        turn.set_result(late)
