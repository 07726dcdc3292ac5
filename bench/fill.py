"""A ledger and a cache as they are after months of use: mixed calls of several models, features and days, made within seconds.

The first rows are written by the ledger itself. The others are copies of these in one INSERT ... SELECT a table: each copy of the
lot is a process of its own, some hours later than the one before, with times of its own.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from msgspec.structs import replace

from nbllm.core.messages import Attempt, AttemptStatus, CallRow, Usage
from nbllm.core.ports import Stored
from nbllm.core.why import Why
from nbllm.storage.open import open_storage
from nbllm.storage.packing import ATTEMPT_FIELDS, CALL_FIELDS

LOT = 2_000
"""Rows that the ledger writes itself."""
DAYS = 90
_MODELS = (("openai/gpt-4o-mini", 0.4), ("lab/qwen", 0.3), ("anthropic/claude-sonnet", 0.2), ("groq/llama", 0.1))
_FEATURES = ("summaries", "search", "chat", "extract", None)
_HITS, _FAILURES, _RETRIED = 0.35, 0.03, 0.04
_HEAD = struct.Struct("<qddd")
"""What a copy has of its own in `packed`: id, started_at, latency_s, ttft_s."""


def fill_ledger(home: Path, rows: int) -> None:
    """Make the ledger of a home with so many closed calls, about a third of them hits, in order of time up to now."""
    # Lots overlap, as the calls of two notebooks do: each begins when the one before it is at two thirds of its time.
    step_s = DAYS * 86_400 / (rows / LOT + 0.5)
    storage = open_storage(home, session="bench")
    try:
        storage.ledger.add_many(_lot(min(rows, LOT), time.time() - DAYS * 86_400, min(step_s * 1.5, DAYS * 86_400)))  # type: ignore[attr-defined]
    finally:
        storage.close()
    with closing(sqlite3.connect(home / "ledger.db", isolation_level=None)) as con:
        con.execute("PRAGMA journal_mode=OFF").fetchall()
        con.execute("PRAGMA synchronous=OFF")
        con.execute("BEGIN")
        _copy(con, rows // LOT, step_s)
        con.execute("COMMIT")
        con.execute("PRAGMA journal_mode=WAL").fetchall()
        (have,) = con.execute("SELECT count(*) FROM calls").fetchone()
        if have != rows:
            raise RuntimeError(f"The ledger has {have:,} rows instead of {rows:,}.")


_ASKED = Why(reason="asked for")


def _lot(count: int, since: float, span_s: float) -> Iterator[tuple[CallRow, list[Attempt]]]:
    """Yield calls with their attempts."""
    rng = random.Random(7)
    names, weights = zip(*_MODELS, strict=True)
    for n in range(count):
        model = rng.choices(names, weights)[0]
        at = since + span_s * n / count
        latency_s = rng.lognormvariate(0.3, 0.7)
        tokens = Usage(input_tokens=rng.randrange(50, 4000), output_tokens=rng.randrange(5, 900))
        cost = Decimal(tokens.input_tokens * 15 + tokens.output_tokens * 60) / 10**8  # type: ignore[operator]  # both are known
        row = CallRow(
            call_id=f"{n:032x}", session=f"session-{n * 4 // count}", started_at=at, status=AttemptStatus.DONE, model=model,
            rung=model, source="model", feature=rng.choice(_FEATURES), user=f"user-{n % 7}", key_hash=f"{n:064x}",
            finish_reason="stop", ttft_s=latency_s * 0.2 if n % 3 else None, latency_s=latency_s,
            input_tokens=tokens.input_tokens, output_tokens=tokens.output_tokens, why=_ASKED,
        )  # fmt: skip
        drawn = rng.random()
        if drawn < _HITS:
            yield (
                replace(row, source="cache", ttft_s=None, latency_s=rng.uniform(4e-5, 2e-4), saved_usd=cost, saved_s=latency_s),
                [],
            )
            continue
        attempt = Attempt(
            attempt_id=f"{n:032x}-1", call_id=row.call_id, number=1, rung=model, endpoint=model.split("/")[0], model=model,
            started_at=at, status=AttemptStatus.DONE, sent=True, ttft_s=row.ttft_s, latency_s=latency_s, usage=tokens,
            worst_case_usd=cost * 3, cost_usd=cost, cost_basis="exact", finish_reason="stop", http_status=200,
        )  # fmt: skip
        broken = replace(
            attempt, status=AttemptStatus.FAILED, http_status=503, error="ServerError", usage=Usage(), cost_usd=Decimal()
        )
        if drawn < _HITS + _FAILURES:
            yield replace(row, status=AttemptStatus.FAILED, source=None, rung=None, error="AllRungsFailed"), [broken]
        elif drawn < _HITS + _FAILURES + _RETRIED:
            yield row, [broken, replace(attempt, attempt_id=f"{n:032x}-2", number=2)]
        else:
            yield row, [attempt]


def _copy(con: sqlite3.Connection, lots: int, step_s: float) -> None:
    """Copy the first lot until there are so many."""
    if [name for name, _, _ in CALL_FIELDS[:4]] != ["id", "started_at", "latency_s", "ttft_s"] or ATTEMPT_FIELDS[0][0] != "call":
        raise RuntimeError("Rows are packed in another way than bench/fill.py knows.")
    con.create_function("moved_call", 5, _moved_call, deterministic=True)
    con.create_function("moved_attempt", 2, lambda packed, call: struct.pack("<q", call) + packed[8:], deterministic=True)
    con.execute("CREATE TEMP TABLE lots (n INTEGER PRIMARY KEY, p INTEGER)")
    add = "INSERT INTO processes (token, session, started_at, closed_at) VALUES ('lot-' || ?1, 'session-' || ?1, 0, 0)"
    for n in range(1, lots):
        con.execute("INSERT INTO lots VALUES (?, ?)", (n, con.execute(add, (n,)).lastrowid))
    at = f"t.started_at + n * {step_s!r}"
    # A time of its own for each copy: within 30% of the first one's, by a multiplicative hash of lot and row.
    spread = "(0.7 + 0.6 * ((n * 40503 + t.id * 25173) % 65536) / 65536.0)"
    ours = {
        "id": "(p << 32) + (t.id & 4294967295)",
        "call": "(p << 32) + (t.call & 4294967295)",
        "process": "'lot-' || n",
        "call_id": "printf('%08x', n) || substr(t.call_id, 9)",
        "attempt_id": "printf('%08x', n) || substr(t.attempt_id, 9)",
        "key_hash": "printf('%08x', n) || substr(t.key_hash, 9)",
        "started_at": at,
        "latency_s": f"t.latency_s * {spread}",
        "ttft_s": f"t.ttft_s * {spread}",
    }
    packed = {
        "calls": f"moved_call(t.packed, {ours['id']}, {at}, {ours['latency_s']}, {ours['ttft_s']})",
        "attempts": f"moved_attempt(t.packed, {ours['call']})",
    }
    for table in ("calls", "attempts"):
        columns = [row[1] for row in con.execute(f"PRAGMA table_info({table})")]
        values = [ours.get(column, f"t.{column}") for column in columns[:-1]] + [packed[table]]
        con.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)}"
            f" FROM lots CROSS JOIN (SELECT * FROM {table} ORDER BY id LIMIT {2 * LOT}) t"
        )
    con.execute(
        "INSERT OR IGNORE INTO marks SELECT 'day:' || date(started_at, 'unixepoch') AS day, min(id) FROM calls GROUP BY day"
    )


def _moved_call(packed: bytes, row_id: int, at: float, latency_s: float | None, ttft_s: float | None) -> bytes:
    unknown = float("nan")
    times = (unknown if value is None else value for value in (latency_s, ttft_s))
    return _HEAD.pack(row_id, at, *times) + packed[_HEAD.size :]


def fill_cache(home: Path, entries: int) -> None:
    """Store so many answers of one to three kilobytes in the cache of a home."""
    storage = open_storage(home, session="bench")
    words = "The quick brown fox jumps over the lazy dog. " * 70

    async def fill() -> None:
        for n in range(entries):
            await storage.store.put(
                Stored(
                    key=f"{n * 2_654_435_761 % 2**32:08x}{n:056x}", model=_MODELS[n % 4][0], created_at=time.time(),
                    expires_at=None, answer={"text": words[: 1000 + n % 2000]}, cost_usd=Decimal("0.001"), latency_s=1.0,
                )
            )  # fmt: skip

    try:
        asyncio.run(fill())
        have = storage.store.stats().entries
        if have != entries:
            raise RuntimeError(f"The cache has {have:,} entries instead of {entries:,}.")
    finally:
        storage.close()
