"""What a process must know to write a row in one statement: its own number, the numbers of names, which marks are set."""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from dataclasses import dataclass, field

from nbllm.core.messages import CallRow
from nbllm.storage.ledger_rows import clean
from nbllm.storage.packing import Names

DAY_S = 86400
_MOST_NAMES = 20_000

_ADD_PROCESS = "INSERT INTO processes (token, session, started_at) VALUES (?, ?, ?)"
_ADD_MARK = (
    "INSERT INTO marks (name, first_id) VALUES (?, ?) "
    "ON CONFLICT (name) DO UPDATE SET first_id = min(first_id, excluded.first_id) WHERE excluded.first_id < first_id"
)


@dataclass(slots=True)
class Learnt:
    """Either what is known to be committed, or what one transaction has learnt and will be known once it is committed.

    marks: the sessions, and the days since 1970, whose first call is marked.
    """

    token: str = ""
    number: int = 0
    names: dict[str | None, int] = field(default_factory=lambda: {None: 0})
    marks: set[str | int] = field(default_factory=set)

    def forget(self) -> None:
        """Begin anew: a transaction that is run again may have been rolled back, and what it learnt with it."""
        self.token, self.number, self.names, self.marks = "", 0, {None: 0}, set()

    def add(self, other: Learnt) -> None:
        """Know what a transaction has learnt, now that it is committed."""
        if len(self.names) > _MOST_NAMES:
            self.names = {None: 0}
        self.names |= other.names
        self.marks |= other.marks
        if other.number:
            self.token, self.number = other.token, other.number

    def process(self, con: sqlite3.Connection, known: Learnt, token: str, session: str) -> int:
        """Return the number of this process, whose name is `token`; it is noted with the first row."""
        for one in (known, self):
            if one.number and one.token == token:
                return one.number
        self.number = con.execute(_ADD_PROCESS, (token, session, time.time())).lastrowid or 0
        self.token = token
        return self.number

    def numbers(self, con: sqlite3.Connection, known: Learnt, row: CallRow) -> Names:
        """Return the numbers of a row's names."""

        def number(name: str | None) -> int:
            if name in known.names:
                return known.names[name]
            stored = clean(name)
            found = con.execute("SELECT id FROM names WHERE name = ?", (stored,)).fetchone()
            self.names[name] = found[0] if found else con.execute("INSERT INTO names (name) VALUES (?)", (stored,)).lastrowid or 0
            return self.names[name]

        return Names(number(row.rung or row.model), number(row.feature), number(row.user), number(row.session))

    def mark(self, con: sqlite3.Connection, known: Learnt, row: CallRow, row_id: int) -> None:
        """Mark a call that is the first of its session or day: filters begin to read there."""
        day = int(row.started_at // DAY_S)
        for mark, name in ((row.session, f"session:{clean(row.session)}"), (day, day_mark(row.started_at))):
            if mark not in known.marks and mark not in self.marks:
                con.execute(_ADD_MARK, (name, row_id))
                self.marks.add(mark)


def day_mark(at: float) -> str:
    """Return the name of the mark of a Unix time's day, UTC: marks of later days sort behind it."""
    return "day:" + (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=at)).date().isoformat()
