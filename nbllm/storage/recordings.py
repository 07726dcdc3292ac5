"""Texts of calls, redacted, in a file apart from the ledger, bounded in age and size."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nbllm.core.ports import Recording, Written
from nbllm.redaction import redact
from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home
from nbllm.storage.opening import give_back
from nbllm.storage.sqlite import Database
from nbllm.storage.texts import storable

DEFAULT_DAYS = 30.0
DEFAULT_BYTES = 500_000_000
_TRIM_EVERY = 50
_COLUMNS = "call_id, started_at, model, prompt, answer, flow"
_KEEP = f"INSERT OR REPLACE INTO recordings ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own


def _first(con: sqlite3.Connection) -> None:
    con.execute(
        "CREATE TABLE recordings (id INTEGER PRIMARY KEY, call_id TEXT NOT NULL UNIQUE, started_at REAL NOT NULL, "
        "model TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL, flow TEXT)"
    )
    con.execute("CREATE INDEX recordings_by_time ON recordings(started_at)")


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
        self._db = Database(home, "recordings.db", migrations=(_first,), on_trouble=on_trouble)

    def keep(self, recording: Recording) -> Written:
        """Keep one; redacting and writing are the writer thread's. Raises HomeUnusable."""

        def run(con: sqlite3.Connection) -> None:
            texts = [_redacted(part) for part in (recording.prompt, recording.answer, recording.flow)]
            values = (recording.call_id, recording.started_at, storable(recording.model), *texts)
            con.execute(_KEEP, values)
            if self._kept % _TRIM_EVERY == 0:
                self._trim(con)
            self._kept += 1

        return self._db.defer(run)

    def _trim(self, con: sqlite3.Connection) -> None:
        con.execute("DELETE FROM recordings WHERE started_at < ?", (time.time() - self._days * 86400,))
        (page_bytes,) = con.execute("PRAGMA page_size").fetchone()
        while True:
            (pages,) = con.execute("PRAGMA page_count").fetchone()
            (free,) = con.execute("PRAGMA freelist_count").fetchone()
            if (pages - free) * page_bytes <= self._limit_bytes:
                return
            oldest = "SELECT id FROM recordings ORDER BY started_at LIMIT 20"
            if con.execute(f"DELETE FROM recordings WHERE id IN ({oldest})").rowcount == 0:  # noqa: S608 - our own
                return

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
        return [_recording(*row) for row in self._db.read(lambda con: con.execute(sql, values).fetchall())]

    def forget(self, *, call_id: str | None = None) -> int:
        """Delete one or all, give the space back, and return how many there were."""
        where, values = ("", ()) if call_id is None else (" WHERE call_id = ?", (call_id,))

        def run(con: sqlite3.Connection) -> int:
            con.execute("PRAGMA secure_delete=1").fetchall()  # forgotten texts are overwritten, not only unlinked
            count = con.execute(f"DELETE FROM recordings{where}", values).rowcount  # noqa: S608 - our own
            give_back(con)
            return count

        self._db.flush()
        count = self._db.run_and_wait(run)
        self._db.empty_log_soon()
        return count

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        self._db.close()


def _redacted(part: Mapping[str, Any] | None) -> str | None:
    # default=str: a user's argument of a flow may be anything, and a recording is to be looked at.
    return None if part is None else redact(json.dumps(part, default=str))


def _recording(call_id: str, started_at: float, model: str, prompt: str, answer: str, flow: str | None) -> Recording:
    return Recording(
        call_id=call_id,
        started_at=started_at,
        model=model,
        prompt=_parsed(prompt),
        answer=_parsed(answer),
        flow=None if flow is None else _parsed(flow),
    )


def _parsed(text: str) -> dict[str, Any]:
    """Return the object; a text that redaction left without its quotes is shown as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return {"text": text}
    return value if isinstance(value, dict) else {"text": text}
