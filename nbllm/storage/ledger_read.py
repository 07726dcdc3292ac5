"""What the ledger's rows add up to. A million calls are read and summed within a second (see packing)."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nbllm.core.messages import Attempt, AttemptStatus, CallRow
from nbllm.core.ports import Filter, Series, UsageRow
from nbllm.errors import InvalidRequest
from nbllm.storage.ledger import day_mark
from nbllm.storage.ledger_rows import attempt_row, call_row, clean
from nbllm.storage.ledger_schema import ATTEMPT_COLUMNS, CALL_COLUMNS
from nbllm.storage.money import to_usd
from nbllm.storage.packing import ATTEMPT_FIELDS, BASES, CALL_FIELDS, HITS, NOT_SENT, RESCUES, SOURCES, STATUSES, UNKNOWN_PICO

T = TypeVar("T")
Rows = NDArray[Any]

GROUPS = ("model", "feature", "user", "day", "session", "source", "status", "total")
NO_NAME = "(none)"
_CHUNK = 100_000
_CALL = np.dtype([(name, kind) for name, kind, _ in CALL_FIELDS])
_ATTEMPT = np.dtype([(name, kind) for name, kind, _ in ATTEMPT_FIELDS])
_DONE = STATUSES.index(AttemptStatus.DONE.value)
_OPEN = STATUSES.index(AttemptStatus.OPEN.value)
_ESTIMATED = BASES.index("estimated")
_DAY_S = 86400
_LAST_ID = 2**63 - 1


def check_group(by: str) -> None:
    """Raise InvalidRequest for a grouping that is none."""
    if by not in GROUPS:
        raise InvalidRequest(f"Usage cannot be summed by {by!r}.", hint=f"by= is one of {', '.join(GROUPS)}.")


class _Where(NamedTuple):
    """A filter as SQL: a WHERE clause with its values, and the ids between which all matching rows lie."""

    clause: str
    values: tuple[Any, ...]
    low: int = 0
    high: int = _LAST_ID


def _where(con: sqlite3.Connection, where: Filter) -> _Where:
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

    for column, value in (("session", where.session), ("feature", where.feature), ("user", where.user)):
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
    return _Where(" AND ".join(clauses) or "1", tuple(values), low)


def _ranges(con: sqlite3.Connection, table: str, low: int, high: int) -> list[tuple[int, int]]:
    """Cut [low, high] into ranges of ids that hold about _CHUNK rows each, by what each process has counted to."""
    highest = f"SELECT max(id) FROM {table} WHERE id >= number << 32 AND id < number + 1 << 32"  # noqa: S608 - our own names
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


def _packed(con: sqlite3.Connection, table: str, where: _Where, kind: np.dtype[Any]) -> Rows:
    """Return the packed rows of a table in order of id. The blobs pass as one: group_concat copies bytes, whatever they are."""
    ours = f"{table} WHERE id > ? AND id <= ? AND {where.clause}"
    sql = f"SELECT CAST(group_concat(packed, '') AS BLOB), count(packed) FROM {ours}"  # noqa: S608 - values are bound
    parts: list[Rows] = []
    for low, high in _ranges(con, table, where.low, where.high):
        blob, count = con.execute(sql, (low, high, *where.values)).fetchone()
        if count:
            parts.append(np.frombuffer(blob, dtype=kind, count=count))
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
    # group_concat promises no order; the ids in `packed` restore it where it matters.
    if kind is _CALL and bool(np.any(np.diff(rows["id"]) <= 0)):
        rows = rows[np.argsort(rows["id"])]
    return rows


def _sums(group: NDArray[np.intp], values: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return exact sums of integers by group. Doubles are exact up to 2**53 and quicker than np.add.at."""
    if float(np.abs(values).sum(dtype=np.float64)) < 2**53:
        return np.bincount(group, weights=values, minlength=size).astype(np.int64)
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, group, values)
    return sums


@dataclass(frozen=True, slots=True)
class _Costs:
    """Per call, in the order of the calls: picodollars known, the estimated part, worst cases of unknown ones, and counts."""

    known: NDArray[np.int64]
    estimated: NDArray[np.int64]
    worst_unknown: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    attempts: NDArray[np.int64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


def _costs(con: sqlite3.Connection, calls: Rows) -> _Costs:
    count = len(calls)
    ids = calls["id"]
    # The attempts of a call are made by its process, so their ids have the same upper half.
    low, high = (int(ids[0]), int(ids[-1])) if count else (_LAST_ID, _LAST_ID)
    where = _Where("+call BETWEEN ? AND ?", (low, high), low >> 32 << 32, ((high >> 32) + 1 << 32) - 1)
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
    return _Costs(
        known=_sums(place, np.where(known, cost, 0), count),
        estimated=_sums(place[estimated], cost[estimated], count),
        worst_unknown=_sums(place[bounded], worst[bounded], count),
        unknown=np.bincount(place[unknown], minlength=count).astype(np.bool_),
        attempts=np.bincount(place, minlength=count),
        input_tokens=_sums(place, np.maximum(rows["input_tokens"], 0), count),
        output_tokens=_sums(place, np.maximum(rows["output_tokens"], 0), count),
    )


def _names(con: sqlite3.Connection) -> dict[int, str]:
    return dict(con.execute("SELECT id, name FROM names"))


def _groups(con: sqlite3.Connection, by: str, calls: Rows) -> tuple[list[str], NDArray[np.intp]]:
    """Return the labels of the groups, and each call's group."""
    if by == "total":
        return ["total"], np.zeros(len(calls), dtype=np.intp)
    keys = np.floor(calls["started_at"] / _DAY_S).astype(np.int64) if by == "day" else calls[by]
    found, group = np.unique(keys, return_inverse=True)
    codes = [int(code) for code in found]
    if by == "day":
        epoch = dt.date(1970, 1, 1)
        return [(epoch + dt.timedelta(days=code)).isoformat() for code in codes], group
    if by == "status":
        return [STATUSES[code] for code in codes], group
    if by == "source":
        return [SOURCES[code] or NO_NAME for code in codes], group
    names = _names(con)
    return [names.get(code, NO_NAME) for code in codes], group


def _failed(calls: Rows) -> NDArray[np.bool_]:
    """Return which calls no model and no fresh entry answered: errors, what was cancelled or died, and what only a stale or static
    answer rescued, for there the models failed. A call under way has not failed yet.
    """
    ended_badly = (calls["status"] != _DONE) & (calls["status"] != _OPEN)
    rescued = np.isin(calls["source"], RESCUES)
    failed: NDArray[np.bool_] = ended_badly | rescued
    return failed


def usage(con: sqlite3.Connection, by: str, where: Filter) -> list[UsageRow]:
    """Return sums by group: days in order, other groups by cost, the dearest first.

    Tokens and costs are those of all attempts, so failed ones and repairs count. A call without an answer is in the group of
    the model that was asked for. An attempt that certainly was not sent costs nothing, whatever is known of its price.
    """
    calls = _packed(con, "calls", _where(con, where), _CALL)
    costs = _costs(con, calls)
    labels, group = _groups(con, by, calls)

    def total(values: NDArray[Any]) -> list[int]:
        return [int(value) for value in _sums(group, values, len(labels))]

    saved_s = np.bincount(group, weights=np.nan_to_num(calls["saved_s"]), minlength=len(labels))
    columns = zip(
        labels,
        total(np.ones(len(calls), dtype=np.int64)),
        total(_failed(calls)),
        total(np.isin(calls["source"], HITS)),
        total(costs.attempts),
        total(costs.input_tokens),
        total(costs.output_tokens),
        map(to_usd, total(costs.known)),
        map(to_usd, total(costs.estimated)),
        total(costs.unknown),
        map(to_usd, total(np.where(calls["saved_pico"] == UNKNOWN_PICO, 0, calls["saved_pico"]))),
        map(float, saved_s),
        strict=True,
    )
    result = [_usage_row(*values) for values in columns]
    return result if by == "day" else sorted(result, key=lambda row: (-row.cost_usd, -row.calls, row.group))


def _usage_row(
    group: str,
    calls: int,
    failed: int,
    hits: int,
    attempts: int,
    input_tokens: int,
    output_tokens: int,
    cost_usd: Decimal,
    estimated_usd: Decimal,
    unknown_cost_calls: int,
    saved_usd: Decimal,
    saved_s: float,
) -> UsageRow:
    return UsageRow(
        group=group,
        calls=calls,
        failed=failed,
        hits=hits,
        attempts=attempts,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost_usd,
        estimated_usd=estimated_usd,
        unknown_cost_calls=unknown_cost_calls,
        saved_usd=saved_usd,
        saved_s=saved_s,
    )


def spent_usd(con: sqlite3.Connection, where: Filter) -> Decimal:
    """Return what the calls cost, with the worst case of those attempts whose cost is not known."""
    costs = _costs(con, _packed(con, "calls", _where(con, where), _CALL))
    return to_usd(int(costs.known.sum()) + int(costs.worst_unknown.sum()))


def series(con: sqlite3.Connection, where: Filter) -> Series:
    """Return calls as columns. Tokens are those of the answer; a cost is NaN when a part of it is unknown, 0 for a hit.

    Calls under way are left out; the times of failed ones (see _failed) are in no percentile of answers.
    """
    calls = _packed(con, "calls", _where(con, where), _CALL)
    calls = calls[calls["status"] != _OPEN]
    costs = _costs(con, calls)
    cost_usd = np.where(costs.unknown, np.nan, costs.known / 1e12)
    order: Any = slice(None)
    if len(calls) > 1 and bool(np.any(calls["started_at"][1:] < calls["started_at"][:-1])):
        order = np.argsort(calls["started_at"], kind="stable")
    calls, cost_usd = calls[order], cost_usd[order]
    found, model = np.unique(calls["model"], return_inverse=True)
    names = _names(con)

    def known(column: str, unknown: int) -> NDArray[np.float64]:
        values: NDArray[np.float64] = calls[column].astype(np.float64)
        values[calls[column] == unknown] = np.nan
        return values

    return Series(
        started_at=calls["started_at"].copy(),
        latency_s=calls["latency_s"].copy(),
        ttft_s=calls["ttft_s"].copy(),
        cost_usd=cost_usd,
        saved_usd=known("saved_pico", UNKNOWN_PICO) / 1e12,
        saved_s=calls["saved_s"].copy(),
        input_tokens=known("input_tokens", -1),
        output_tokens=known("output_tokens", -1),
        hit=np.isin(calls["source"], HITS),
        failed=_failed(calls),
        model=model.astype(np.int32),
        models=tuple(names.get(int(code), NO_NAME) for code in found),
    )


def _fetch(con: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
    cursor = con.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(sql, values).fetchall()


def newest(con: sqlite3.Connection, where: Filter, limit: int) -> list[CallRow]:
    """Return the newest calls, newest first; the last few days are looked at first, so that a large ledger is not read for them."""
    if where.since is None:
        for (mark,) in con.execute(
            "SELECT name FROM marks WHERE name >= 'day:' AND name < 'day;' ORDER BY name DESC LIMIT 3"
        ).fetchall():
            day = dt.datetime.fromisoformat(mark.removeprefix("day:")).replace(tzinfo=dt.UTC)
            found = _newest(con, _where(con, replace(where, since=day.timestamp())), limit)
            if len(found) >= limit:
                return found
    return _newest(con, _where(con, where), limit)


def _newest(con: sqlite3.Connection, where: _Where, limit: int) -> list[CallRow]:
    order = "ORDER BY started_at DESC, id DESC"
    ids = f"SELECT id FROM calls WHERE id >= ? AND {where.clause} {order} LIMIT ?"  # noqa: S608 - values are bound
    sql = f"SELECT {CALL_COLUMNS} FROM calls WHERE id IN ({ids}) {order}"  # noqa: S608 - same
    return [call_row(row) for row in _fetch(con, sql, (where.low, *where.values, limit))]


def attempts(con: sqlite3.Connection, call_id: str, row_id: int | None) -> list[Attempt]:
    """Return a call's attempts in order; with the id of its row they are found by index, else by reading the table."""
    condition, value = ("call_id = ?", call_id) if row_id is None else ("call = ?", row_id)
    sql = f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE {condition} ORDER BY number, id"  # noqa: S608 - bound
    return [attempt_row(row) for row in _fetch(con, sql, (value,))]
