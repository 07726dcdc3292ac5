"""What the ledger's rows add up to. A million calls are read and summed within a second (see packing)."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nbllm.core.messages import Attempt, AttemptStatus, CallRow
from nbllm.core.ports import Filter, Series, UsageRow
from nbllm.core.records import Seen
from nbllm.errors import InvalidRequest
from nbllm.storage.ledger_columns import Costs, Rows, Where, calls_of, costs_of, sums, where_of
from nbllm.storage.ledger_rows import attempt_row, call_row
from nbllm.storage.ledger_schema import ATTEMPT_COLUMNS, CALL_COLUMNS, ORIGIN_COLUMNS, WHY_COLUMNS
from nbllm.storage.money import to_usd
from nbllm.storage.packing import HITS, RESCUES, SOURCES, STATUSES, UNKNOWN_PICO

T = TypeVar("T")

GROUPS = ("model", "feature", "user", "day", "session", "source", "status", "total")
NO_NAME = "(none)"
_WHOLE_CALL = f"{CALL_COLUMNS}, {WHY_COLUMNS}, {ORIGIN_COLUMNS}"
_DONE = STATUSES.index(AttemptStatus.DONE.value)
_OPEN = STATUSES.index(AttemptStatus.OPEN.value)
_DAY_S = 86400


def check_group(by: str) -> None:
    """Raise InvalidRequest for a grouping that is none."""
    if by not in GROUPS:
        raise InvalidRequest(f"Usage cannot be summed by {by!r}.", hint=f"by= is one of {', '.join(GROUPS)}.")


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


def usages(con: sqlite3.Connection, groupings: Sequence[str], where: Filter, *, ended: bool = False) -> list[list[UsageRow]]:
    """Return the sums of each grouping, from one read: days in order, other groups by cost, the dearest first.

    Tokens and costs are those of all attempts, so failed ones and repairs count. A call without an answer is in the group of
    the model that was asked for. An attempt that certainly was not sent costs nothing, whatever is known of its price. ended: calls
    that are under way are left out.
    """
    calls = calls_of(con, where)
    if ended:
        calls = calls[calls["status"] != _OPEN]
    costs = costs_of(con, calls)
    return [_sums(con, by, calls, costs) for by in groupings]


def _sums(con: sqlite3.Connection, by: str, calls: Rows, costs: Costs) -> list[UsageRow]:
    labels, group = _groups(con, by, calls)

    def total(values: NDArray[Any]) -> list[int]:
        return [int(value) for value in sums(group, values, len(labels))]

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
    costs = costs_of(con, calls_of(con, where))
    return to_usd(int(costs.known.sum()) + int(costs.worst_unknown.sum()))


def series(con: sqlite3.Connection, where: Filter, *, costs: bool = True) -> Series:
    """Return calls as columns. Tokens are those of the answer; a cost is NaN when a part of it is unknown, 0 for a hit.

    costs=False leaves the attempts unread, which is a third of the time: then all costs are NaN.

    Calls under way are left out; the times of failed ones (see _failed) are in no percentile of answers.
    """
    calls = calls_of(con, where)
    calls = calls[calls["status"] != _OPEN]
    cost_usd = _cost_usd(con, calls) if costs else np.full(len(calls), np.nan)
    started_at = calls["started_at"].copy()
    order: Any = slice(None)
    if bool(np.any(started_at[1:] < started_at[:-1])):
        order = np.argsort(started_at, kind="stable")
    codes, model = np.unique(calls["model"], return_inverse=True)
    names = _names(con)

    def column(name: str) -> NDArray[Any]:
        # One field after the other: taking whole rows in a new order is ten times slower.
        values: NDArray[Any] = np.ascontiguousarray(calls[name])[order]
        return values

    def known(name: str, unknown: int) -> NDArray[np.float64]:
        raw = column(name)
        values: NDArray[np.float64] = raw.astype(np.float64)
        values[raw == unknown] = np.nan
        return values

    return Series(
        started_at=started_at[order],
        latency_s=column("latency_s"),
        ttft_s=column("ttft_s"),
        cost_usd=cost_usd[order],
        saved_usd=known("saved_pico", UNKNOWN_PICO) / 1e12,
        saved_s=column("saved_s"),
        input_tokens=known("input_tokens", -1),
        output_tokens=known("output_tokens", -1),
        hit=np.isin(column("source"), HITS),
        failed=_failed(calls)[order],
        model=model.astype(np.int32)[order],
        models=tuple(names.get(int(code), NO_NAME) for code in codes),
    )


def _cost_usd(con: sqlite3.Connection, calls: Rows) -> NDArray[np.float64]:
    costs = costs_of(con, calls)
    cost_usd: NDArray[np.float64] = np.where(costs.unknown, np.nan, costs.known / 1e12)
    return cost_usd


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
            found = _newest(con, where_of(con, replace(where, since=day.timestamp())), limit)
            if len(found) >= limit:
                return found
    return _newest(con, where_of(con, where), limit)


def _newest(con: sqlite3.Connection, where: Where, limit: int) -> list[CallRow]:
    order = "ORDER BY started_at DESC, id DESC"
    ids = f"SELECT id FROM calls WHERE id >= ? AND {where.clause} {order} LIMIT ?"  # noqa: S608 - values are bound
    sql = f"SELECT {_WHOLE_CALL} FROM calls WHERE id IN ({ids}) {order}"  # noqa: S608 - same
    return [call_row(row) for row in _fetch(con, sql, (where.low, *where.values, limit))]


def key_hashes(con: sqlite3.Connection, where: Filter) -> frozenset[str]:
    """Return the cache keys of the calls that fit, each once: of a million calls that asked the same there is one."""
    which = where_of(con, where)
    sql = f"SELECT DISTINCT key_hash FROM calls WHERE id >= ? AND {which.clause} AND key_hash IS NOT NULL"  # noqa: S608 - bound
    return frozenset(key for (key,) in con.execute(sql, (which.low, *which.values)))


def one(con: sqlite3.Connection, call_id: str) -> CallRow | None:
    """Return the row of a call, None without one."""
    found = _fetch(con, f"SELECT {_WHOLE_CALL} FROM calls WHERE call_id = ? ORDER BY id DESC LIMIT 1", (call_id,))  # noqa: S608
    return call_row(found[0]) if found else None


def attempts(con: sqlite3.Connection, call_id: str, row_id: int | None) -> list[Attempt]:
    """Return a call's attempts in order; with the id of its row they are found by index, else by reading the table."""
    condition, value = ("call_id = ?", call_id) if row_id is None else ("call = ?", row_id)
    sql = f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE {condition} ORDER BY number, id"  # noqa: S608 - bound
    return [attempt_row(row) for row in _fetch(con, sql, (value,))]


def newest_answers(con: sqlite3.Connection, limit: int) -> list[Seen]:
    """Return the newest attempts that were answered, oldest first. Only the last `limit` rows of the newest processes are read."""
    newest = "SELECT rung, latency_s, output_tokens, purpose, status, started_at FROM attempts ORDER BY id DESC LIMIT ?"
    sql = f"SELECT rung, latency_s, output_tokens FROM ({newest}) WHERE status = 'done' AND purpose IN ('answer', 'repair')"  # noqa: S608 - our own
    return [Seen(*row) for row in con.execute(f"{sql} ORDER BY started_at", (limit,))]


def attempts_of(con: sqlite3.Connection, where: Filter, limit: int) -> list[Attempt]:
    """Return the attempts of the newest calls that fit, those of one call in order."""
    which = where_of(con, where)
    ids = f"SELECT id FROM calls WHERE id >= ? AND {which.clause} ORDER BY started_at DESC, id DESC LIMIT ?"  # noqa: S608 - bound
    sql = f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE call IN ({ids}) ORDER BY call, number, id"  # noqa: S608 - same
    return [attempt_row(row) for row in _fetch(con, sql, (which.low, *which.values, limit))]
