"""Rows of the ledger as numpy arrays: which ones a filter means, read without a Python object a row, and their costs by call."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbllm.core.ports import Filter
from nbllm.storage.ledger_learnt import day_mark
from nbllm.storage.ledger_rows import clean
from nbllm.storage.packing import ATTEMPT_FIELDS, BASES, CALL_FIELDS, NOT_SENT, UNKNOWN_PICO

Rows = NDArray[Any]

_CHUNK = 100_000
_CALL = np.dtype([(name, kind) for name, kind, _ in CALL_FIELDS])
_ATTEMPT = np.dtype([(name, kind) for name, kind, _ in ATTEMPT_FIELDS])
_ESTIMATED = BASES.index("estimated")
_LAST_ID = 2**63 - 1


class Where(NamedTuple):
    """A filter as SQL: a WHERE clause with its values, and the ids between which all matching rows lie."""

    clause: str
    values: tuple[Any, ...]
    low: int = 0
    high: int = _LAST_ID


def where_of(con: sqlite3.Connection, where: Filter) -> Where:
    """Return a filter as SQL, narrowed by the marks of its session and first day."""
    clauses: list[str] = []
    values: list[Any] = []
    low = 0

    def add(clause: str, *args: Any) -> None:
        clauses.append(clause)
        values.extend(args)

    def after(marks: str, *args: Any) -> int:
        (first,) = con.execute(f"SELECT min(first_id) FROM marks WHERE {marks}", args).fetchone()  # noqa: S608 - values are bound
        return _LAST_ID if first is None else int(first)

    for column, value in _chosen(where):
        if value is not None:
            add(f"{column} = ?", clean(value))
    if where.session is not None:
        low = after("name = ?", f"session:{clean(where.session)}")
    if where.model is not None and where.model.endswith("*"):
        add("substr(coalesce(rung, model), 1, ?) = ?", len(where.model) - 1, where.model[:-1])
    elif where.model is not None:
        add("coalesce(rung, model) = ?", clean(where.model))
    if where.since is not None:
        add("started_at >= ?", where.since)
        low = max(low, after("name >= ? AND name < 'day;'", day_mark(where.since)))
    if where.until is not None:
        add("started_at < ?", where.until)
    return Where(" AND ".join(clauses) or "1", tuple(values), low)


def _chosen(where: Filter) -> tuple[tuple[str, str | None], ...]:
    return ("session", where.session), ("feature", where.feature), ("user", where.user), ("notebook", where.notebook)


def _ranges(con: sqlite3.Connection, table: str, low: int, high: int) -> list[tuple[int, int]]:
    """Cut [low, high] into ranges of ids that hold about _CHUNK rows each, by what each process has counted to."""
    # attempts have a column `number` as well: an unqualified one would be theirs.
    first, next_first = "processes.number << 32", "processes.number + 1 << 32"
    highest = f"SELECT max(id) FROM {table} WHERE id >= {first} AND id < {next_first}"  # noqa: S608 - our own names
    sql = f"SELECT number, ({highest}) FROM processes WHERE number >= ? AND number <= ? ORDER BY number"  # noqa: S608
    cuts = [low - 1]
    held = 0
    for number, last in con.execute(sql, (low >> 32, high >> 32)).fetchall():
        start = max(low, number << 32)
        while last is not None and last - start + held >= _CHUNK:
            start += _CHUNK - held
            cuts.append(start)
            held = 0
        held += 0 if last is None else max(0, last - start)
    return list(zip(cuts, [*cuts[1:], high], strict=True))


def _packed(con: sqlite3.Connection, table: str, where: Where, kind: np.dtype[Any]) -> Rows:
    """Return the packed rows of a table in order of id. The blobs pass as one: group_concat copies bytes, whatever they are."""
    ours = f"{table} WHERE id > ? AND id <= ? AND {where.clause}"
    sql = f"SELECT CAST(group_concat(packed, '') AS BLOB) FROM {ours}"  # noqa: S608 - values are bound
    parts = [con.execute(sql, (low, high, *where.values)).fetchone()[0] for low, high in _ranges(con, table, where.low, where.high)]
    rows: Rows = np.frombuffer(b"".join(part for part in parts if part), dtype=kind)
    # group_concat promises no order; the ids in `packed` restore it where it matters.
    if kind is _CALL and bool(np.any(np.diff(rows["id"]) <= 0)):
        rows = rows[np.argsort(rows["id"])]
    return rows


def sums(group: NDArray[np.intp], values: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return exact sums of integers by group. Doubles are exact up to 2**53 and quicker than np.add.at."""
    if float(np.abs(values).sum(dtype=np.float64)) < 2**53:
        return np.bincount(group, weights=values, minlength=size).astype(np.int64)
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, group, values)
    return sums


@dataclass(frozen=True, slots=True)
class Costs:
    """Per call, in the order of the calls: picodollars known, the estimated part, worst cases of unknown ones, and counts."""

    known: NDArray[np.int64]
    estimated: NDArray[np.int64]
    worst_unknown: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    attempts: NDArray[np.int64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


def costs_of(con: sqlite3.Connection, calls: Rows) -> Costs:
    """Return the costs of calls, given in order of id, with what all their attempts came to."""
    count = len(calls)
    ids = calls["id"]
    # The attempts of a call are made by its process, so their ids have the same upper half.
    low, high = (int(ids[0]), int(ids[-1])) if count else (_LAST_ID, _LAST_ID)
    where = Where("+call BETWEEN ? AND ?", (low, high), low >> 32 << 32, ((high >> 32) + 1 << 32) - 1)
    rows = _packed(con, "attempts", where, _ATTEMPT)
    place = np.searchsorted(ids, rows["call"])
    mine = ids[np.minimum(place, count - 1)] == rows["call"] if count else np.zeros(len(rows), dtype=np.bool_)
    if not mine.all():
        rows, place = rows[mine], place[mine]
    cost, worst = rows["cost_pico"], rows["worst_pico"]
    known = cost != UNKNOWN_PICO
    unknown = ~known & (rows["sent"] != NOT_SENT)
    estimated = known & (rows["basis"] == _ESTIMATED)
    bounded = unknown & (worst != UNKNOWN_PICO)
    return Costs(
        known=sums(place, np.where(known, cost, 0), count),
        estimated=sums(place[estimated], cost[estimated], count),
        worst_unknown=sums(place[bounded], worst[bounded], count),
        unknown=np.bincount(place[unknown], minlength=count).astype(np.bool_),
        attempts=np.bincount(place[rows["sent"] != NOT_SENT], minlength=count),
        input_tokens=sums(place, np.maximum(rows["input_tokens"], 0), count),
        output_tokens=sums(place, np.maximum(rows["output_tokens"], 0), count),
    )


def calls_of(con: sqlite3.Connection, where: Filter) -> Rows:
    """Return the calls that a filter means, in order of id."""
    return _packed(con, "calls", where_of(con, where), _CALL)
