"""Texts of calls, redacted, in a file apart from the ledger, bounded in age and size."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nbllm.core.ports import Recording, Written
from nbllm.core.recorded import flows_of, with_ends
from nbllm.redaction import redact
from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home
from nbllm.storage.opening import give_back
from nbllm.storage.sqlite import Database
from nbllm.storage.texts import storable

DEFAULT_DAYS = 30.0
DEFAULT_BYTES = 500_000_000
_TRIM_EVERY = 50
_COLUMNS = "call_id, started_at, model, prompt, answer, flow, session, notebook"
_KEEP = f"INSERT OR REPLACE INTO recordings ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own
_MOST_NAMES = 500
"""How many values one statement is given: SQLite takes 999 at least."""


def _first(con: sqlite3.Connection) -> None:
    con.execute(
        "CREATE TABLE recordings (id INTEGER PRIMARY KEY, call_id TEXT NOT NULL UNIQUE, started_at REAL NOT NULL, "
        "model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL, flow TEXT)"
    )
    con.execute("CREATE INDEX recordings_by_time ON recordings(started_at)")


def _second(con: sqlite3.Connection) -> None:
    con.execute("ALTER TABLE recordings ADD COLUMN session TEXT")
    con.execute("ALTER TABLE recordings ADD COLUMN notebook TEXT")
    con.execute(
        "CREATE TABLE runs (run TEXT PRIMARY KEY, ended_at REAL NOT NULL, status TEXT NOT NULL, calls INTEGER NOT NULL) "
        "WITHOUT ROWID"
    )


class SqliteRecordings:
    """The Recordings of one home, `recordings.db`. The oldest go first when there are more than `limit_bytes` of them.

    days: how long one is kept. Losing one, to a full disk or a kill, is no error.
    """

    def __init__(
        self,
        home: Home,
        *,
        days: float = DEFAULT_DAYS,
        limit_bytes: int = DEFAULT_BYTES,
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self._days = days
        self._limit_bytes = limit_bytes
        self._kept = 0
        self._db = Database(home, "recordings.db", migrations=(_first, _second), on_trouble=on_trouble)

    def keep(self, recording: Recording) -> Written:
        """Keep one; redacting and writing are the writer thread's. Raises HomeUnusable."""

        def run(con: sqlite3.Connection) -> None:
            texts = [_redacted(part) for part in (recording.prompt, recording.answer, recording.flow)]
            where = (recording.session, recording.notebook)
            con.execute(_KEEP, (recording.call_id, recording.started_at, storable(recording.model), *texts, *where))
            if self._kept % _TRIM_EVERY == 0:
                self._trim(con)
            self._kept += 1

        return self._db.defer(run)

    def _trim(self, con: sqlite3.Connection) -> None:
        oldest_at = time.time() - self._days * 86400
        con.execute("DELETE FROM recordings WHERE started_at < ?", (oldest_at,))
        con.execute("DELETE FROM runs WHERE ended_at < ?", (oldest_at,))
        (page_bytes,) = con.execute("PRAGMA page_size").fetchone()
        while True:
            (pages,) = con.execute("PRAGMA page_count").fetchone()
            (free,) = con.execute("PRAGMA freelist_count").fetchone()
            if (pages - free) * page_bytes <= self._limit_bytes:
                return
            oldest = "SELECT id FROM recordings ORDER BY started_at LIMIT 20"
            if con.execute(f"DELETE FROM recordings WHERE id IN ({oldest})").rowcount == 0:  # noqa: S608 - our own
                return

    def end_run(self, run: str, status: str, calls: int) -> Written:
        """Note how a run of a flow ended. Raises HomeUnusable."""
        values = (run, time.time(), status, calls)

        def run_over(con: sqlite3.Connection) -> None:
            con.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", values)

        return self._db.defer(run_over)

    def get(self, call_id: str) -> Recording | None:
        """Return one or None."""
        found = self._select("WHERE call_id = ?", (call_id,))
        return found[0] if found else None

    def newest(self, limit: int) -> Sequence[Recording]:
        """Return the newest, newest first."""
        return self._select("ORDER BY started_at DESC, id DESC LIMIT ?", (limit,))

    def _select(self, rest: str, values: tuple[Any, ...]) -> list[Recording]:
        self._db.flush()
        sql = f"SELECT {_COLUMNS} FROM recordings {rest}"  # noqa: S608 - our own
        found = [_recording(*row) for row in self._db.read(partial(_rows, sql, values))]
        runs = sorted({str(one.get("run")) for recording in found for one in flows_of(recording)})
        ends: dict[str, Mapping[str, Any]] = {}
        for at in range(0, len(runs), _MOST_NAMES):
            some = tuple(runs[at : at + _MOST_NAMES])
            wanted = f"SELECT run, status, calls FROM runs WHERE run IN ({','.join('?' * len(some))})"  # noqa: S608 - our own
            rows = self._db.read(partial(_rows, wanted, some))
            ends |= {run: {"status": status, "calls": calls} for run, status, calls in rows}
        return [with_ends(recording, ends) for recording in found]

    def forget(self, *, call_id: str | None = None) -> int:
        """Delete one or all, give the space back, and return how many there were."""
        where, values = ("", ()) if call_id is None else (" WHERE call_id = ?", (call_id,))

        def run(con: sqlite3.Connection) -> int:
            con.execute("PRAGMA secure_delete=1").fetchall()  # forgotten texts are overwritten, not only unlinked
            count = con.execute(f"DELETE FROM recordings{where}", values).rowcount  # noqa: S608 - our own
            if call_id is None:
                con.execute("DELETE FROM runs")
            give_back(con)
            return count

        self._db.flush()
        count = self._db.run_and_wait(run)
        self._db.empty_log_soon()
        return count

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        self._db.close()


def _rows(sql: str, values: tuple[Any, ...], con: sqlite3.Connection) -> list[Any]:
    return con.execute(sql, values).fetchall()


def _redacted(part: Mapping[str, Any] | None) -> str | None:
    # default=str: a user's argument of a flow may be anything, and a recording is to be looked at.
    return None if part is None else redact(json.dumps(part, default=str))


def _recording(
    call_id: str, started_at: float, model: str, prompt: str, answer: str, flow: str | None, *where: str | None
) -> Recording:  # fmt: skip
    session, notebook = where
    return Recording(
        call_id=call_id,
        started_at=started_at,
        model=model,
        prompt=_parsed(prompt),
        answer=_parsed(answer),
        flow=None if flow is None else _parsed(flow),
        session=session,
        notebook=notebook,
    )


def _parsed(text: str) -> dict[str, Any]:
    """Return the object; a text that redaction left without its quotes is shown as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return {"text": text}
    return value if isinstance(value, dict) else {"text": text}
