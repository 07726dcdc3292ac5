"""The ledger: one row per call, one per attempt, opened before it happens and closed once. Numbers and names, no text.

docs/ledger.md describes the tables. A row's id is `process number << 32 | count`: known before the insert, unique without asking
anybody, and in order of time within a process, so that inserts go to one place of the file whatever its size.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from nbllm.core.ports import Filter, Series, UsageRow, Written
from nbllm.core.records import Attempt, AttemptStatus, CallRow, Seen
from nbllm.errors import HomeUnusable, StorageError
from nbllm.storage import ledger_found
from nbllm.storage import ledger_rows as rows
from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home
from nbllm.storage.ledger_learnt import DAY_S, Learnt
from nbllm.storage.ledger_reap import all_closed, others_are_noted, reap
from nbllm.storage.ledger_schema import CLOSE_ATTEMPT, INSERT_ATTEMPT, MIGRATIONS
from nbllm.storage.packing import Names
from nbllm.storage.sqlite import Database

if TYPE_CHECKING:
    from nbllm.storage.ledger_read import T

REAP_EVERY_S = 60.0
_MOST_IDS = 8192
_CLOSE_S = 0.5
"""How long closing waits at most to note that nothing of this process's is left open."""


class SqliteLedger:
    """The ledger of one home, `ledger.db`. Nothing is opened before the first use; safe for threads, forks and several processes.

    session: what the processes table notes this process under. on_trouble: told once of each kind of trouble.
    """

    def __init__(self, home: Home, *, session: str, on_trouble: OnTrouble | None = None) -> None:
        self._home = home
        self._session = session
        self._db = Database(home, "ledger.db", migrations=MIGRATIONS, opened=self._opened, on_trouble=on_trouble)
        # Never begun anew: a row that another thread has just numbered may land in the file that comes after.
        self._call_counts = itertools.count(1)
        self._attempt_counts = itertools.count(1)
        self._forget()

    def _forget(self) -> None:
        """Know nothing: with a new connection, which may be that of a new file, and in a forked child."""
        self._pid = os.getpid()
        self._learnt = Learnt()
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._attempt_ids: dict[str, int] = {}
        self._open_calls = self._home.open_calls = set()
        self._looked = False
        self._reap_at_s = time.monotonic() + REAP_EVERY_S

    def _opened(self, con: sqlite3.Connection) -> None:
        self._forget()
        self._looked = True
        if others_are_noted(con):
            self._db.defer(self._reap)

    @property
    def degraded(self) -> str | None:
        """What is wrong with the file just now, None for nothing."""
        return self._db.degraded

    # ------------------------------------------------------------------------------------------------ writing

    def open_call(self, row: CallRow) -> Written:
        """Insert an open call: together with its first attempt, or soon."""
        done = self._insert_call(row, self._db.ride)
        self._open_calls.add(row.call_id)  # after it: opening the file forgets what was known of another
        return done

    def add_call(self, row: CallRow, *, together: bool = False) -> Written:
        """Insert a call that is closed already."""
        return self._insert_call(row, self._db.execute_in_turn if together else self._db.execute)

    def close_call(self, row: CallRow) -> Written:
        """Close a call; one that is closed already stays as it is."""
        self._open_calls.discard(row.call_id)
        names = self._known_names(row)
        row_id = self._ids.get(row.call_id)
        if names is not None and row_id is not None:
            return self._db.execute_together(*rows.close_call(row_id, row, names))
        learnt = Learnt()

        def run(con: sqlite3.Connection) -> None:
            learnt.forget()
            found = ledger_found.open_call(con, row.call_id) if row_id is None else row_id
            if found is not None:
                con.execute(*rows.close_call(found, row, learnt.numbers(con, self._learnt, row)))

        return self._slowly(run, learnt, searches=row_id is None)

    def open_attempt(self, attempt: Attempt) -> Written:
        """Insert an open attempt."""
        learnt = self._learnt
        call = self._ids.get(attempt.call_id)
        if learnt.number and call is not None and self._pid == os.getpid():
            row_id = self._attempt_ids[attempt.attempt_id] = learnt.number << 32 | next(self._attempt_counts)
            return self._db.execute_together(INSERT_ATTEMPT, rows.insert_attempt(row_id, call, learnt.token, attempt))
        learnt = Learnt()

        def run(con: sqlite3.Connection) -> None:
            learnt.forget()
            of = ledger_found.open_call(con, attempt.call_id) if call is None else call
            row_id = self._number(con, learnt) << 32 | next(self._attempt_counts)
            con.execute(INSERT_ATTEMPT, rows.insert_attempt(row_id, of or 0, self._home.token, attempt))
            self._attempt_ids[attempt.attempt_id] = row_id

        return self._slowly(run, learnt, searches=call is None)

    def close_attempt(self, attempt: Attempt) -> Written:
        """Close an attempt; one that is closed already stays as it is."""
        call, row_id = self._ids.get(attempt.call_id), self._attempt_ids.pop(attempt.attempt_id, None)
        if call is not None and row_id is not None:
            # With the call's own closing, a moment later: until then nobody was told of an answer.
            return self._db.ride(CLOSE_ATTEMPT, rows.close_attempt(row_id, call, attempt))
        return self._slowly(lambda con: ledger_found.close_attempt(con, attempt), Learnt(), searches=True)

    def add_many(self, calls: Iterable[tuple[CallRow, Sequence[Attempt]]]) -> int:
        """Insert calls with their attempts, in one transaction, and return how many: for imports and measurements."""
        learnt = Learnt()

        def run(con: sqlite3.Connection) -> int:
            learnt.forget()
            count = 0
            for row, attempts in calls:
                call = self._insert_slowly(con, row, learnt)
                if row.status is AttemptStatus.OPEN or any(one.status is AttemptStatus.OPEN for one in attempts):
                    self._open_calls.add(row.call_id)
                number = self._learnt.number or learnt.number
                for attempt in attempts:
                    row_id = number << 32 | next(self._attempt_counts)
                    con.execute(INSERT_ATTEMPT, rows.insert_attempt(row_id, call, self._home.token, attempt))
                count += 1
            return count

        count = self._db.run_and_wait(run, wait_s=60.0)
        self._learnt.add(learnt)
        self._db.empty_log_soon()
        return count

    def _insert_call(self, row: CallRow, commit: Callable[[str, Sequence[Any]], Written]) -> Written:
        names = self._known_names(row)
        learnt = self._learnt
        if names is not None and row.session in learnt.marks and int(row.started_at // DAY_S) in learnt.marks:
            row_id = learnt.number << 32 | next(self._call_counts)
            self._remember(row.call_id, row_id)
            return commit(*rows.insert_call(row_id, learnt.token, row, names))
        new = Learnt()

        def run(con: sqlite3.Connection) -> None:
            new.forget()
            self._remember(row.call_id, self._insert_slowly(con, row, new))

        return _written(self._db.write(run, then=lambda _: self._learnt.add(new)))

    def _slowly(self, run: Callable[[sqlite3.Connection], None], learnt: Learnt, *, searches: bool) -> Written:
        """Write what takes more than one statement; searches: it reads the table, which the writer thread does."""

        def known(_: None) -> None:
            self._learnt.add(learnt)

        return self._db.defer(run, then=known) if searches else _written(self._db.write(run, then=known))

    def _known_names(self, row: CallRow) -> Names | None:
        """Return the numbers of a row's names if all of them, and this process's own, are known to be committed."""
        if self._pid != os.getpid():
            self._forget()
        if time.monotonic() > self._reap_at_s:
            self._reap_at_s = time.monotonic() + REAP_EVERY_S
            self._db.defer(self._reap)
        known = self._learnt
        try:
            names = known.names
            found = Names(names[row.rung or row.model], names[row.feature], names[row.user], names[row.session])
        except KeyError:
            return None
        return found if known.number else None

    def _remember(self, call_id: str, row_id: int) -> None:
        ids = self._ids
        ids[call_id] = row_id
        if len(ids) > _MOST_IDS:
            ids.popitem(last=False)

    # ------------------------------------------------------------------------------------------------ in a transaction

    def _number(self, con: sqlite3.Connection, learnt: Learnt) -> int:
        return learnt.process(con, self._learnt, self._home.token, self._session)

    def _insert_slowly(self, con: sqlite3.Connection, row: CallRow, learnt: Learnt) -> int:
        number, names = self._number(con, learnt), learnt.numbers(con, self._learnt, row)
        row_id = number << 32 | next(self._call_counts)
        learnt.mark(con, self._learnt, row, row_id)
        con.execute(*rows.insert_call(row_id, self._home.token, row, names))
        return row_id

    def _reap(self, con: sqlite3.Connection) -> None:
        reap(con, self._home.dead, own=self._learnt.number)

    # ------------------------------------------------------------------------------------------------ reading

    def usage(self, by: str, where: Filter, *, ended: bool = False) -> Sequence[UsageRow]:
        """Sums by group; see ledger_read.usages."""
        return self.usages((by,), where, ended=ended)[0]

    def usages(self, groupings: Sequence[str], where: Filter, *, ended: bool = False) -> Sequence[Sequence[UsageRow]]:
        """The sums of each grouping, from one read."""
        from nbllm.storage.ledger_read import check_group, usages

        for by in groupings:
            check_group(by)
        return self._read(lambda con: usages(con, groupings, where, ended=ended))

    def series(self, where: Filter, *, costs: bool = True) -> Series:
        """Calls as columns, in order of started_at; without costs no attempt is read."""
        from nbllm.storage.ledger_read import series

        return self._read(lambda con: series(con, where, costs=costs))

    def spent_usd(self, where: Filter) -> Decimal:
        """What the calls cost, worst cases of unknown ones included."""
        from nbllm.storage.ledger_read import spent_usd

        return self._read(lambda con: spent_usd(con, where))

    def calls(self, where: Filter, *, limit: int) -> Sequence[CallRow]:
        """The newest calls, newest first."""
        from nbllm.storage.ledger_read import newest

        return self._read(lambda con: newest(con, where, limit))

    def call(self, call_id: str) -> CallRow | None:
        """A call's row."""
        from nbllm.storage.ledger_read import one

        return self._read(lambda con: one(con, call_id))

    def key_hashes(self, where: Filter) -> frozenset[str]:
        """The cache keys of the calls that fit."""
        from nbllm.storage.ledger_read import key_hashes

        return self._read(lambda con: key_hashes(con, where))

    def attempts(self, call_id: str) -> Sequence[Attempt]:
        """A call's attempts in order."""
        from nbllm.storage.ledger_read import attempts

        return self._read(lambda con: attempts(con, call_id, self._ids.get(call_id)))

    def newest_answers(self, limit: int) -> Sequence[Seen]:
        """The newest attempts that were answered."""
        from nbllm.storage.ledger_read import newest_answers

        return self._read(lambda con: newest_answers(con, limit))

    def attempts_of(self, where: Filter, *, limit: int) -> Sequence[Attempt]:
        """The attempts of the newest calls that fit."""
        from nbllm.storage.ledger_read import attempts_of

        return self._read(lambda con: attempts_of(con, where, limit))

    def _read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        if self._pid != os.getpid():
            self._forget()
        if not self._looked:
            self._db.read(lambda _: None)
        self._db.flush()  # rows of the dead are closed by the writer thread
        return self._db.read(run)

    def close(self) -> None:
        """Commit what waits and let go of the file. The run lock is the home's: whoever opened the home closes it."""
        number = self._learnt.number
        if number and self._pid == os.getpid() and not self._open_calls and not self._attempt_ids:
            with suppress(StorageError, HomeUnusable):  # then the next process searches this one's rows
                self._db.run_and_wait(lambda con: all_closed(con, number), wait_s=_CLOSE_S)
        self._db.close()


def _written(done: Future[None] | None) -> Written:
    return done
