"""The tables of ledger.db, described for users in docs/ledger.md. Migrations are numbered by their place and never rewritten."""

from __future__ import annotations

import sqlite3

from nbllm.storage.opening import Additive

_CALLS = """
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    call_id TEXT NOT NULL,
    session TEXT NOT NULL,
    process TEXT NOT NULL,
    started_at REAL NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    model TEXT, rung TEXT, source TEXT,
    coalesced INTEGER NOT NULL,
    feature TEXT, user TEXT,
    cache TEXT NOT NULL,
    key_hash TEXT, finish_reason TEXT,
    ttft_s REAL, latency_s REAL,
    input_tokens INTEGER, output_tokens INTEGER,
    saved_picodollars INTEGER, saved_s REAL,
    repairs INTEGER NOT NULL,
    reason TEXT NOT NULL,
    error TEXT,
    packed BLOB NOT NULL
)"""

_ATTEMPTS = """
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    attempt_id TEXT NOT NULL,
    call INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    process TEXT NOT NULL,
    number INTEGER NOT NULL,
    rung TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    purpose TEXT NOT NULL,
    started_at REAL NOT NULL,
    status TEXT NOT NULL,
    sent INTEGER,
    streamed INTEGER NOT NULL,
    waited_s REAL NOT NULL,
    ttft_s REAL, latency_s REAL,
    input_tokens INTEGER, output_tokens INTEGER, reasoning_tokens INTEGER, cached_input_tokens INTEGER,
    tokens_estimated INTEGER NOT NULL,
    worst_case_picodollars INTEGER, cost_picodollars INTEGER,
    cost_basis TEXT NOT NULL,
    finish_reason TEXT, error TEXT, http_status INTEGER,
    packed BLOB NOT NULL
)"""

# Open rows are few, so these indexes stay small and an insert costs the same in a ledger of any size.
_INDEXES = (
    "CREATE INDEX open_calls ON calls(call_id) WHERE status = 'open'",
    "CREATE INDEX open_attempts ON attempts(attempt_id) WHERE status = 'open'",
    "CREATE INDEX attempts_of_call ON attempts(call)",
)

# names: numbers for the names in `packed`. processes: the upper half of ids; closed_at: none of its rows is open any more.
# marks: the first call of a session or day.
_HELPERS = (
    "CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE processes (number INTEGER PRIMARY KEY, token TEXT NOT NULL, session TEXT NOT NULL, started_at REAL NOT NULL)",
    "CREATE TABLE marks (name TEXT PRIMARY KEY, first_id INTEGER NOT NULL) WITHOUT ROWID",
)

_VIEW = """
CREATE VIEW calls_with_cost AS
SELECT c.id, c.call_id, c.session, c.process, c.started_at, datetime(c.started_at, 'unixepoch') AS started, c.kind, c.status,
       c.model, c.rung, c.source, c.coalesced, c.feature, c.user, c.cache, c.key_hash, c.finish_reason, c.ttft_s, c.latency_s,
       c.input_tokens, c.output_tokens, c.saved_picodollars / 1e12 AS saved_usd, c.saved_s, c.repairs, c.reason, c.error,
       count(a.id) AS attempts,
       coalesce(sum(a.cost_picodollars), 0) AS known_cost_picodollars,
       CASE WHEN count(a.id) = count(a.cost_picodollars) THEN coalesce(sum(a.cost_picodollars), 0) / 1e12 END AS cost_usd,
       CASE WHEN count(a.id) > count(a.cost_picodollars) THEN 'unknown'
            WHEN sum(a.cost_basis = 'estimated') > 0 THEN 'estimated'
            ELSE 'exact' END AS cost_basis
FROM calls c LEFT JOIN attempts a ON a.call = c.id
GROUP BY c.id"""


def _first(con: sqlite3.Connection) -> None:
    for statement in (_CALLS, _ATTEMPTS, *_INDEXES, *_HELPERS, _VIEW):
        con.execute(statement)


def _second(con: sqlite3.Connection) -> None:
    """Find open rows by id: an index of them cost two pages in each commit. Only a process that ended has to be searched, once."""
    for statement in (
        "DROP INDEX open_calls",
        "DROP INDEX open_attempts",
        "ALTER TABLE processes ADD COLUMN closed_at REAL",
    ):
        con.execute(statement)


def _third(con: sqlite3.Connection) -> None:
    """Keep why an answer came from where it came: the route, and for a match by similarity how safe it was."""
    kinds = ("TEXT", "INTEGER NOT NULL DEFAULT 1", "REAL", "TEXT", "REAL", "REAL", "TEXT")
    for name, kind in zip(WHY_COLUMNS.split(", "), kinds, strict=True):
        con.execute(f"ALTER TABLE calls ADD COLUMN {name} {kind}")
    shown = ", ".join(f"c.{name}" for name in WHY_COLUMNS.split(", "))
    con.execute("DROP VIEW calls_with_cost")
    con.execute(_VIEW.replace("c.reason, c.error,", f"c.reason, c.error, {shown},"))


def _fourth(con: sqlite3.Connection) -> None:
    """Keep where in a notebook a call was made."""
    for name in ORIGIN_COLUMNS.split(", "):
        con.execute(f"ALTER TABLE calls ADD COLUMN {name} TEXT")
    shown = ", ".join(f"c.{name}" for name in f"{WHY_COLUMNS}, {ORIGIN_COLUMNS}".split(", "))
    con.execute("DROP VIEW calls_with_cost")
    con.execute(_VIEW.replace("c.reason, c.error,", f"c.reason, c.error, {shown},"))


WHY_COLUMNS = "route, accepted, similarity, guards, threshold, error_upper, plan_id"
ORIGIN_COLUMNS = "cell_id, notebook"
MIGRATIONS = (_first, _second, _third, Additive(_fourth))

CALL_COLUMNS = (
    "id, call_id, session, process, started_at, kind, status, model, rung, source, coalesced, feature, user, cache, key_hash, "
    "finish_reason, ttft_s, latency_s, input_tokens, output_tokens, saved_picodollars, saved_s, repairs, reason, error, packed"
)
ATTEMPT_COLUMNS = (
    "id, attempt_id, call, call_id, process, number, rung, endpoint, model, purpose, started_at, status, sent, streamed, waited_s, "
    "ttft_s, latency_s, input_tokens, output_tokens, reasoning_tokens, cached_input_tokens, tokens_estimated, "
    "worst_case_picodollars, cost_picodollars, cost_basis, finish_reason, error, http_status, packed"
)


def _insert(table: str, columns: str) -> str:
    marks = ", ".join("?" * len(columns.split(",")))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - names of our own


INSERT_CALL = _insert("calls", CALL_COLUMNS)
INSERT_CALL_IN_NOTEBOOK = _insert("calls", f"{CALL_COLUMNS}, {ORIGIN_COLUMNS}")
INSERT_CALL_WHY = _insert("calls", f"{CALL_COLUMNS}, {ORIGIN_COLUMNS}, {WHY_COLUMNS}")
INSERT_ATTEMPT = _insert("attempts", ATTEMPT_COLUMNS)
CLOSE_CALL = (
    "UPDATE calls SET status = ?, model = ?, rung = ?, source = ?, coalesced = ?, key_hash = ?, finish_reason = ?, ttft_s = ?, "
    "latency_s = ?, input_tokens = ?, output_tokens = ?, saved_picodollars = ?, saved_s = ?, repairs = ?, reason = ?, error = ?, "
    "packed = ? WHERE id = ? AND status = 'open'"
)
CLOSE_CALL_WHY = CLOSE_CALL.replace(" WHERE", "".join(f", {name} = ?" for name in WHY_COLUMNS.split(", ")) + " WHERE")
CLOSE_ATTEMPT = (
    "UPDATE attempts SET status = ?, sent = ?, streamed = ?, waited_s = ?, ttft_s = ?, latency_s = ?, input_tokens = ?, "
    "output_tokens = ?, reasoning_tokens = ?, cached_input_tokens = ?, tokens_estimated = ?, worst_case_picodollars = ?, "
    "cost_picodollars = ?, cost_basis = ?, finish_reason = ?, error = ?, http_status = ?, packed = ? "
    "WHERE id = ? AND status = 'open'"
)
