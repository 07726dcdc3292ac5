"""Reading: what is committed, waiting for no writer; on a connection of its own but for questions that are answered at once."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from nbllm.storage.connections import Connections
from nbllm.storage.faults import Fault, Troubles, fault_of
from nbllm.storage.transactions import Transactions

T = TypeVar("T")

READ_WAITS_S = (0.001, 0.003)
"""Pauses of a read in a file that another process is just opening or closing; otherwise WAL never makes a reader wait."""
OPEN_WAITS_S = (0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16, 0.2)
"""The same for the first read: several processes may be making the same new file."""


class Reader:
    """The reads of one file, one at a time."""

    def __init__(self, files: Connections, transactions: Transactions, troubles: Troubles) -> None:
        self.lock = threading.Lock()
        self._files = files
        self._transactions = transactions
        self._troubles = troubles

    def read(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `run` reads. A damaged file is set aside, and a new one read. Raises StorageError, HomeUnusable."""
        for wait_s in (*(READ_WAITS_S if self._files.reading is not None else OPEN_WAITS_S), None):
            try:
                with self.lock:
                    return run(self._files.reading or self._open())
            except sqlite3.Error as exc:
                fault = fault_of(exc)
                if wait_s is None or fault not in {Fault.BUSY, Fault.DAMAGED}:
                    raise self._troubles.error(exc) from exc
                if fault is Fault.DAMAGED:
                    with self._transactions.lock:
                        self._transactions.set_aside()
            time.sleep(wait_s)
        raise AssertionError  # the last round returns or raises

    def first_row(self, sql: str, parameters: Sequence[Any]) -> Any:
        """Return the first row of a question that is answered at once, None for none. Raises as read does.

        Asked of the writing connection where nobody uses it, for its pages are at hand: a reading one fetches anew what was written
        since it last read, and takes twice as long.
        """
        con = self._files.writing
        if con is not None and self._transactions.take_lock(0.0):
            try:
                if con is self._files.writing:
                    return _first(con.execute(sql, parameters))
            except sqlite3.Error:
                pass  # below it is known what to do
            finally:
                self._transactions.lock.release()
        return self.read(lambda con: _first(con.execute(sql, parameters)))

    def _open(self) -> sqlite3.Connection:
        if self._files.writing is None:  # whoever opens for writing makes the file
            with self._transactions.lock:
                if self._files.writing is None:
                    self._files.open()
        return self._files.open_reader()


def _first(cursor: sqlite3.Cursor) -> Any:
    rows = cursor.fetchall()  # to its end: only then is the statement over
    return rows[0] if rows else None
