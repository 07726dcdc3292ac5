"""Budgets shared by all processes on one home: reserve and settle, each in one transaction, exact to the picodollar."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetExceeded, BudgetUnavailable, HomeUnusable, StorageError
from nbllm.storage.home import Home
from nbllm.storage.money import to_pico, to_usd
from nbllm.storage.sqlite import Database
from nbllm.storage.texts import storable

WAIT_S = 1.0
SWEEP_EVERY_S = 60.0
SETTLED_KEPT_S = 86400.0
REQUEST_SCOPES_KEPT_S = 2 * 86400.0

_ADD = (
    "INSERT INTO scopes (name, spent, reserved, touched_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO UPDATE SET "
    "spent = spent + ?2, reserved = reserved + ?3, touched_at = ?4"
)
_RESERVE = (
    "INSERT INTO reservations SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM settled WHERE id = ?1) "
    "ON CONFLICT (id) DO NOTHING"
)
_BOOK = (
    "INSERT INTO scopes (name, spent, reserved, touched_at) VALUES (?1, ?2, 0, ?3) "
    "ON CONFLICT (name) DO UPDATE SET spent = spent + ?2, touched_at = ?3"
)
_SETTLED = "SELECT id FROM settled WHERE id IN (SELECT value FROM json_each(?))"
_SETTLED_ONE = "SELECT id FROM settled WHERE id = ?"
_MOST_BOOKED = 10_000
_NONE = Balance(Decimal(0), Decimal(0))


class SqliteBudgets:
    """The BudgetStore of one home. Names of scopes are stored as given; a reservation of a process that ended is spent in full.

    A database that stays locked for WAIT_S, is read-only or on a full disk makes reserve and settle raise BudgetUnavailable; what
    was to be settled while it was locked is still booked when the lock is free.
    """

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._db = database
        self._sweep_at_s = 0.0
        self._reserved: set[str] = set()
        self._booked: OrderedDict[str, None] = OrderedDict()
        self._due = _Due(closed=True)
        self._dropped = 0

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        """Reserve in all scopes or in none. An id that was reserved or settled before changes nothing.

        Returns the balances of limited scopes.
        """
        amount = to_pico(amount_usd)
        process = self._token()
        names = list(dict.fromkeys([scope.name for scope in scopes]))
        limited = _limited(scopes)

        def run(con: sqlite3.Connection) -> Mapping[str, Balance]:
            self._sweep_now_and_then(con)
            before = balances(con, [scope.name for scope in limited])
            if reservation_id in self._booked:
                return before
            try:
                for scope in limited:
                    refuse_if_full(scope, before[scope.name], amount_usd)
            except BudgetExceeded:
                if _known(con, reservation_id):
                    return before
                raise
            if not con.execute(_RESERVE, (reservation_id, amount, _names_json(tuple(names)), process)).rowcount:
                return before
            _add(con, names, spent=0, reserved=amount)
            more_usd = to_usd(amount)
            return {name: Balance(held.spent_usd, held.reserved_usd + more_usd) for name, held in before.items()}

        self._reserved.add(reservation_id)
        try:
            return await self._run(run)
        except BaseException as exc:
            self._reserved.discard(reservation_id)
            if isinstance(exc, asyncio.CancelledError):
                # The transaction may be on its way on the writer thread: its caller will never settle it.
                self._db.defer(lambda con: _drop(con, reservation_id))
            raise

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        """Book the cost, once per id, and drop the reservation.

        Where nothing is limited and nothing was reserved there is nothing to decide: no balances are read or returned.
        """
        cost = to_pico(cost_usd)
        limited = _limited(scopes)
        if reservation_id not in self._reserved and not limited:
            self._book(reservation_id, scopes, cost)
            return {}
        self._reserved.discard(reservation_id)

        def run(con: sqlite3.Connection) -> Mapping[str, Balance]:
            self._sweep_now_and_then(con)
            names = list(dict.fromkeys([scope.name for scope in scopes]))
            settled = (reservation_id, time.time())
            if reservation_id in self._booked or not con.execute("INSERT OR IGNORE INTO settled VALUES (?, ?)", settled).rowcount:
                return balances(con, [scope.name for scope in limited])
            held = _taken(con, reservation_id)
            if held is not None and held[1] == names:  # as a rule: then both go in one step
                _add(con, names, spent=cost, reserved=-held[0])
            else:
                if held is not None:
                    _add(con, held[1], spent=0, reserved=-held[0])
                _add(con, names, spent=cost, reserved=0)
            return balances(con, [scope.name for scope in limited])

        return await self._run(run, kept=True)

    def _book(self, reservation_id: str, scopes: Sequence[Scope], cost: int) -> None:
        """Add to each scope, once per id, together with the next write: no decision hangs on it."""
        if reservation_id in self._booked:
            return
        self._booked[reservation_id] = None
        if len(self._booked) > _MOST_BOOKED:
            self._booked.popitem(last=False)
        names = list(dict.fromkeys([scope.name for scope in scopes]))
        if cost and (self._dropped != self._db.dropped or not self._due.add(reservation_id, names, cost)):
            self._due, self._dropped = _Due(), self._db.dropped
            self._due.add(reservation_id, names, cost)
            self._db.ride_with(self._due.book)

    async def balance(self, names: Sequence[str]) -> Mapping[str, Balance]:
        """Return the balances. Raises BudgetUnavailable."""
        self._db.flush_all()
        try:
            return self._db.read(lambda con: balances(con, names))
        except StorageError as exc:
            raise _unavailable(exc) from exc

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _token(self) -> str:
        try:
            return self._home.token
        except HomeUnusable as exc:
            raise _unavailable(exc) from exc

    async def _run(
        self, run: Callable[[sqlite3.Connection], Mapping[str, Balance]], *, kept: bool = False
    ) -> Mapping[str, Balance]:
        try:
            return await self._db.run(run, wait_s=WAIT_S, kept=kept)
        except (StorageError, HomeUnusable) as exc:
            raise _unavailable(exc) from exc

    def _sweep_now_and_then(self, con: sqlite3.Connection) -> None:
        now_s = time.monotonic()
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + SWEEP_EVERY_S
        owners = [process for (process,) in con.execute("SELECT DISTINCT process FROM reservations")]
        for process in self._home.dead(owners):
            rows = con.execute("SELECT id, amount, scopes FROM reservations WHERE process = ?", (process,)).fetchall()
            for reservation_id, amount, names in rows:
                con.execute("INSERT OR IGNORE INTO settled VALUES (?, ?)", (reservation_id, time.time()))
                _drop(con, reservation_id)
                _add(con, json.loads(names), spent=amount, reserved=0)
        con.execute("DELETE FROM settled WHERE at < ?", (time.time() - SETTLED_KEPT_S,))
        con.execute(
            "DELETE FROM scopes WHERE name >= 'request:' AND name < 'request;' AND reserved = 0 AND touched_at < ?",
            (time.time() - REQUEST_SCOPES_KEPT_S,),
        )


class _Due:
    """What many attempts cost, to be booked in one go. Once that began, nothing is added any more."""

    def __init__(self, *, closed: bool = False) -> None:
        self._costs: dict[str, tuple[list[str], int]] = {}
        self._closed = closed
        self._lock = threading.Lock()  # any thread may come to commit what rides

    def add(self, reservation_id: str, names: list[str], cost: int) -> bool:
        """Add a cost to each scope; False when it is too late for that."""
        with self._lock:
            if not self._closed:
                self._costs[reservation_id] = names, cost
            return not self._closed

    def book(self, con: sqlite3.Connection) -> None:
        """Book it, inside a transaction, but for ids that are settled already; again where that came to nothing."""
        with self._lock:
            self._closed = True
        ids = list(self._costs)
        # A table of JSON costs more than several plain questions.
        found = con.execute(_SETTLED_ONE, ids) if len(ids) == 1 else con.execute(_SETTLED, (json.dumps(ids),))
        settled = {row[0] for row in found}
        sums: dict[str, int] = {}
        for reservation_id, (names, cost) in self._costs.items():
            if reservation_id not in settled:
                for name in names:
                    sums[name] = sums.get(name, 0) + cost
        now = time.time()
        con.executemany(_BOOK, [(storable(name), cost, now) for name, cost in sums.items()])


def _limited(scopes: Iterable[Scope]) -> list[Scope]:
    """Return the scopes on which something hangs: the balances of the others nobody needs to know."""
    return [scope for scope in scopes if scope.hard_usd is not None or scope.soft_usd is not None]


def refuse_if_full(scope: Scope, balance: Balance, amount_usd: Decimal) -> None:
    """Raise BudgetExceeded when the amount does not fit below the scope's hard limit, or when nothing is left at all."""
    if scope.hard_usd is None:
        return
    held = balance.spent_usd + balance.reserved_usd
    if held + amount_usd > scope.hard_usd or balance.spent_usd >= scope.hard_usd:
        raise BudgetExceeded(
            scope=scope.name,
            limit_usd=scope.hard_usd,
            spent_usd=balance.spent_usd,
            reserved_usd=balance.reserved_usd,
            needed_usd=amount_usd,
        )


def balances(con: sqlite3.Connection, names: Iterable[str]) -> dict[str, Balance]:
    """Return the balance of each name, zero for one never seen."""
    kept = {name: storable(name) for name in names}
    marks = ",".join("?" * len(kept))
    rows = con.execute(f"SELECT name, spent, reserved FROM scopes WHERE name IN ({marks})", tuple(kept.values()))  # noqa: S608 - marks
    found = {name: Balance(to_usd(spent), to_usd(reserved)) for name, spent, reserved in rows}
    return {name: found.get(stored, _NONE) for name, stored in kept.items()}


@lru_cache(maxsize=1024)
def _names_json(names: tuple[str, ...]) -> str:
    return json.dumps(names)


@lru_cache(maxsize=1024)
def _names_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _known(con: sqlite3.Connection, reservation_id: str) -> bool:
    sql = "SELECT EXISTS (SELECT 1 FROM reservations WHERE id = ?1) OR EXISTS (SELECT 1 FROM settled WHERE id = ?1)"
    return bool(con.execute(sql, (reservation_id,)).fetchone()[0])


def _add(con: sqlite3.Connection, names: Iterable[str], *, spent: int, reserved: int) -> None:
    """Add to each scope."""
    now = time.time()
    con.executemany(_ADD, [(storable(name), spent, reserved, now) for name in names])


def _drop(con: sqlite3.Connection, reservation_id: str) -> None:
    """Delete a reservation and give its amount back; none is no error."""
    held = _taken(con, reservation_id)
    if held is not None:
        _add(con, held[1], spent=0, reserved=-held[0])


def _taken(con: sqlite3.Connection, reservation_id: str) -> tuple[int, list[str]] | None:
    """Delete a reservation and return its amount and scopes, None for none."""
    row = con.execute("DELETE FROM reservations WHERE id = ? RETURNING amount, scopes", (reservation_id,)).fetchone()
    return (int(row[0]), list(_names_of(row[1]))) if row else None


def _unavailable(exc: StorageError | HomeUnusable) -> BudgetUnavailable:
    return BudgetUnavailable(f"The budget cannot be checked: {exc.summary} Nothing was sent.", hint=exc.hint)
