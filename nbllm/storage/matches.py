"""What the semantic cache has met, and what people say of it: semantic.db of a home."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from nbllm.core.ports.ledger import Written
from nbllm.core.ports.matches import Label, Match, MatchKind, Origin, pair_hash
from nbllm.redaction import redact
from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home
from nbllm.storage.opening import give_back
from nbllm.storage.sqlite import Database
from nbllm.storage.texts import storable

MOST_MATCHES = 50_000
"""Beyond it the oldest matches that nobody labelled go."""
KEEP_DAYS = 90.0
_TRIM_EVERY = 200
_MATCH = Match.__struct_fields__
_LABEL = Label.__struct_fields__
_TEXTS = frozenset({"query", "question", "would", "got"})
_TABLES = (
    """CREATE TABLE matches (
        match_id TEXT PRIMARY KEY, at REAL NOT NULL, call_id TEXT NOT NULL, kind TEXT NOT NULL, rung TEXT NOT NULL,
        scope TEXT NOT NULL, embedder TEXT NOT NULL, guards TEXT NOT NULL, query TEXT NOT NULL, question TEXT NOT NULL,
        key TEXT NOT NULL, score REAL NOT NULL, failed TEXT NOT NULL, would TEXT NOT NULL, got TEXT, probability REAL,
        "order" REAL NOT NULL, plan_id TEXT, owner TEXT, asked TEXT NOT NULL)""",
    "CREATE INDEX matches_by_call ON matches(call_id)",
    "CREATE INDEX matches_by_time ON matches(at)",
    "CREATE INDEX matches_by_asked ON matches(asked) WHERE kind = 'hit'",
    "CREATE INDEX matches_by_key ON matches(key) WHERE would <> ''",
    """CREATE INDEX matches_to_label ON matches("order") WHERE failed = '[]' AND probability IS NOT NULL""",
    """CREATE TABLE labels (
        label_id TEXT PRIMARY KEY, at REAL NOT NULL, correct INTEGER NOT NULL, origin TEXT NOT NULL, score REAL NOT NULL,
        scope TEXT NOT NULL, embedder TEXT NOT NULL, guards TEXT NOT NULL, query TEXT NOT NULL, question TEXT NOT NULL,
        probability REAL, match_id TEXT, plan_id TEXT, kind TEXT)""",
    "CREATE UNIQUE INDEX labels_by_match ON labels(match_id, origin) WHERE match_id IS NOT NULL",
    "CREATE TABLE blocked (pair TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE looks (what TEXT NOT NULL, data TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (what, data)) WITHOUT ROWID",
    "CREATE TABLE taken_back (plan_id TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID",
)
_OFFERED = """failed = '[]' AND probability IS NOT NULL AND score >= ?
    AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.match_id = matches.match_id AND labels.origin <> 'judge')"""


def _first(con: sqlite3.Connection) -> None:
    for statement in _TABLES:
        con.execute(statement)


def _columns(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _insert(table: str, names: Sequence[str]) -> str:
    return f"INSERT OR REPLACE INTO {table} ({_columns(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - our own


class SqliteMatches:
    """The Matches of one home, `semantic.db`. Texts are redacted before they are written."""

    def __init__(self, home: Home, *, most: int = MOST_MATCHES, on_trouble: OnTrouble | None = None) -> None:
        self._most = most
        self._kept = 0
        self._db = Database(home, "semantic.db", migrations=(_first,), on_trouble=on_trouble)

    def note(self, match: Match) -> Written:
        """Keep one; redacting and writing are the writer thread's."""

        def run(con: sqlite3.Connection) -> None:
            con.execute(_insert("matches", _MATCH), _row(match, _MATCH))
            if self._kept % _TRIM_EVERY == 0:
                self._trim(con)
            self._kept += 1

        return self._db.defer(run)

    def _trim(self, con: sqlite3.Connection) -> None:
        free = "match_id NOT IN (SELECT match_id FROM labels WHERE match_id IS NOT NULL)"
        con.execute(f"DELETE FROM matches WHERE at < ? AND {free}", (time.time() - KEEP_DAYS * 86_400,))  # noqa: S608 - our own
        (count,) = con.execute("SELECT count(*) FROM matches").fetchone()
        if count > self._most:
            oldest = f"SELECT match_id FROM matches WHERE {free} ORDER BY at LIMIT ?"  # noqa: S608 - our own
            con.execute(f"DELETE FROM matches WHERE match_id IN ({oldest})", (count - self._most,))  # noqa: S608 - our own

    def finish(self, match_id: str, got: str) -> Written:
        """Add the model's answer."""
        return self._db.defer(
            lambda con: _none(con.execute("UPDATE matches SET got = ? WHERE match_id = ?", (storable(redact(got)), match_id)))
        )

    def of_call(self, call_id: str) -> Match | None:
        """Return the last match of a call that counted, else the last."""
        found = self._matches("WHERE call_id = ? ORDER BY failed = '[]' DESC, at DESC LIMIT 1", (call_id,))
        return found[0] if found else None

    def hit_of(self, asked: str) -> Match | None:
        """Return the newest hit of a question."""
        found = self._matches("WHERE asked = ? AND kind = 'hit' ORDER BY at DESC LIMIT 1", (asked,))
        return found[0] if found else None

    def keys(self) -> Sequence[str]:
        """Return the keys of the stored answers whose texts are here."""
        self._db.flush()
        rows = self._db.read(lambda con: con.execute("SELECT DISTINCT key FROM matches WHERE would <> ''").fetchall())
        return [key for (key,) in rows]

    def blank(self, keys: Sequence[str]) -> None:
        """Overwrite the texts of answers."""

        def run(con: sqlite3.Connection) -> None:
            con.execute("PRAGMA secure_delete=1").fetchall()
            con.executemany("UPDATE matches SET would = '', got = NULL WHERE key = ?", [(key,) for key in keys])

        self._db.flush()
        self._db.run_and_wait(run)
        self._db.empty_log_soon()

    def newest(self, limit: int, *, kind: MatchKind | None = None) -> Sequence[Match]:
        """Return matches, newest first."""
        if kind is None:
            return self._matches("ORDER BY at DESC LIMIT ?", (limit,))
        return self._matches("WHERE kind = ? ORDER BY at DESC LIMIT ?", (kind, limit))

    def to_label(self, limit: int, *, scope: str | None = None, at_least: float = -1.0) -> Sequence[Match]:
        """Return what is offered and not labelled yet, in its random order."""
        if scope is None:
            return self._matches(f'WHERE {_OFFERED} ORDER BY "order" LIMIT ?', (at_least, limit))
        return self._matches(f'WHERE {_OFFERED} AND scope = ? ORDER BY "order" LIMIT ?', (at_least, scope, limit))

    def unread(self, *, at_least: float = -1.0) -> int:
        """Return how many are offered and not labelled."""
        self._db.flush()
        sql = f"SELECT count(*) FROM matches WHERE {_OFFERED}"  # noqa: S608 - our own
        (count,) = self._db.read(lambda con: con.execute(sql, (at_least,)).fetchone())
        return int(count)

    def _matches(self, rest: str, values: tuple[Any, ...]) -> list[Match]:
        self._db.flush()
        sql = f"SELECT {_columns(_MATCH)} FROM matches {rest}"  # noqa: S608 - our own
        return [_match(row) for row in self._db.read(lambda con: con.execute(sql, values).fetchall())]

    def label(self, label: Label) -> None:
        """Keep a label."""
        self._db.run_and_wait(lambda con: _none(con.execute(_insert("labels", _LABEL), _row(label, _LABEL))))

    def labels(self, *, origin: Origin | None = None) -> Sequence[Label]:
        """Return labels, oldest first."""
        self._db.flush()
        where, values = ("", ()) if origin is None else ("WHERE origin = ?", (origin,))
        sql = f"SELECT {_columns(_LABEL)} FROM labels {where} ORDER BY at, rowid"  # noqa: S608 - our own
        rows = self._db.read(lambda con: con.execute(sql, values).fetchall())
        return [_label(row) for row in rows]

    def forget(self) -> int:
        """Delete all matches and labels, and give the space back."""

        def run(con: sqlite3.Connection) -> int:
            con.execute("PRAGMA secure_delete=1").fetchall()  # forgotten texts are overwritten, not only unlinked
            count = con.execute("DELETE FROM matches").rowcount + con.execute("DELETE FROM labels").rowcount
            give_back(con)
            return count

        self._db.flush()
        count = self._db.run_and_wait(run)
        self._db.empty_log_soon()
        return count

    def block(self, query: str, question: str) -> None:
        """Block a pair, for good."""
        values = (pair_hash(query, question), time.time())
        self._db.run_and_wait(lambda con: _none(con.execute("INSERT OR REPLACE INTO blocked VALUES (?, ?)", values)))

    def blocked(self, query: str, question: str) -> bool:
        """Whether a pair is blocked, by this process or another."""
        pair = pair_hash(query, question)
        return self._db.read(lambda con: con.execute("SELECT 1 FROM blocked WHERE pair = ?", (pair,)).fetchone()) is not None

    def look(self, what: str, data: str) -> int:
        """Count a look, unless it is the same again."""

        def run(con: sqlite3.Connection) -> int:
            again = con.execute("SELECT number FROM looks WHERE what = ? AND data = ?", (what, data)).fetchone()
            if again is not None:
                return int(again[0])
            (last,) = con.execute("SELECT coalesce(max(number), 0) FROM looks WHERE what = ?", (what,)).fetchone()
            con.execute("INSERT INTO looks VALUES (?, ?, ?)", (what, data, last + 1))
            return int(last) + 1

        return self._db.run_and_wait(run)

    def take_back(self, plan_id: str, reason: str) -> bool:
        """Note that a plan no longer serves."""
        values = (plan_id, reason, time.time())
        return self._db.run_and_wait(
            lambda con: con.execute("INSERT OR IGNORE INTO taken_back VALUES (?, ?, ?)", values).rowcount == 1
        )

    def taken_back(self, plan_id: str) -> str | None:
        """Return why a plan no longer serves."""
        row = self._db.read(lambda con: con.execute("SELECT reason FROM taken_back WHERE plan_id = ?", (plan_id,)).fetchone())
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Commit what waits and let go of the file."""
        self._db.close()


def _row(item: Match | Label, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_value(name, getattr(item, name)) for name in names)


def _value(name: str, value: Any) -> Any:
    if name in _TEXTS and value is not None:
        return storable(redact(value))
    if name == "failed":
        return redact(json.dumps(value))
    return storable(value) if isinstance(value, str) else value


def _match(row: Sequence[Any]) -> Match:
    values = dict(zip(_MATCH, row, strict=True))
    return Match(**values | {"failed": tuple(json.loads(values["failed"]))})


def _label(row: Sequence[Any]) -> Label:
    values = dict(zip(_LABEL, row, strict=True))
    return Label(**values | {"correct": bool(values["correct"])})


def _none(_: object) -> None:
    return None
