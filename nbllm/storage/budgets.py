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
from functools import partial

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetExceeded, BudgetUnavailable, HomeUnusable, StorageError
from nbllm.storage import budget_rows as rows
from nbllm.storage.budget_rows import Reserving, Settling, refuse_if_full
from nbllm.storage.home import Home
from nbllm.storage.money import to_pico, to_usd
from nbllm.storage.sqlite import Database
from nbllm.storage.texts import storable
from nbllm.storage.writer import Refused

WAIT_S = 1.0
SWEEP_EVERY_S = 60.0
SETTLED_KEPT_S = 86400.0
REQUEST_SCOPES_KEPT_S = 2 * 86400.0

_BOOK = (
    "INSERT INTO scopes (name, spent, reserved, touched_at) VALUES (?1, ?2, 0, ?3) "
    "ON CONFLICT (name) DO UPDATE SET spent = spent + ?2, touched_at = ?3"
)
_SETTLED = "SELECT id FROM settled WHERE id IN (SELECT value FROM json_each(?))"
_SETTLED_ONE = "SELECT id FROM settled WHERE id = ?"
_MOST_BOOKED = 10_000
Balances = Mapping[str, Balance]


class SqliteBudgets:
    """The BudgetStore of one home. Names of scopes are stored as given; a reservation of a process that ended is spent in full.

    A database that stays locked for WAIT_S, is read-only or on a full disk makes reserve and settle raise BudgetUnavailable; what
    was to be settled while it was locked is still booked when the lock is free. What several calls ask in one turn of their loop
    is read, decided and written in one go: first what is settled, then what is reserved, each in its order.
    """

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._db = database
        self._sweep_at_s = 0.0
        self._reserved: dict[str, Reserving] = {}
        self._booked: OrderedDict[str, None] = OrderedDict()
        """Ids that this process has settled. Asked where a reservation is not there: a commit that failed puts it back."""
        self._due = _Due(closed=True)
        self._dropped = 0

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Balances:
        """Reserve in all scopes or in none. An id that was reserved or settled before changes nothing.

        Returns the balances of limited scopes.
        """
        names = tuple(dict.fromkeys([scope.name for scope in scopes]))
        asked = Reserving(reservation_id, names, _limited(scopes), to_pico(amount_usd), amount_usd, self._token())
        known = self._reserved.setdefault(reservation_id, asked)
        try:
            return await self._run(lambda con: self._reserve(con, asked), asked)
        except BaseException as exc:
            if known is asked:
                self._reserved.pop(reservation_id, None)
            if isinstance(exc, asyncio.CancelledError):
                # The transaction may be on its way on the writer thread: its caller will never settle it.
                self._db.defer(lambda con: rows.drop(con, reservation_id))
            raise

    def _reserve(self, con: sqlite3.Connection, asked: Reserving) -> Balances:
        self._sweep_now_and_then(con)
        before = rows.balances(con, [scope.name for scope in asked.limited])
        if asked.id in self._booked:
            return before
        try:
            for scope in asked.limited:
                refuse_if_full(scope, before[scope.name], asked.amount_usd)
        except BudgetExceeded:
            if rows.known(con, asked.id):
                return before
            raise
        if not rows.reserve(con, asked):
            return before
        rows.add(con, asked.names, spent=0, reserved=asked.amount)
        more_usd = to_usd(asked.amount)
        return {name: Balance(held.spent_usd, held.reserved_usd + more_usd) for name, held in before.items()}

    def _reserve_many(self, con: sqlite3.Connection, asked: list[Reserving]) -> list[Balances | Refused]:
        if len(asked) == 1 or any(one.id in self._booked for one in asked):
            return [_or_refusal(partial(self._reserve, con, one)) for one in asked]
        self._sweep_now_and_then(con)
        return [Refused(one) if isinstance(one, BudgetExceeded) else one for one in rows.reserve_many(con, asked)]

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Balances:
        """Book the cost, once per id, and drop the reservation. What raised may be repeated.

        Each id is of one attempt. Settled a second time it books nothing as long as it is among the newest 10,000 that this process
        has settled; and, where no reservation was found, for the day that the database notes it.
        Where nothing is limited and nothing was reserved there is nothing to decide: no balances are read or returned.
        """
        cost = to_pico(cost_usd)
        limited = _limited(scopes)
        reserved = self._reserved.pop(reservation_id, None)
        if reserved is None and not limited and reservation_id not in self._booked:
            self._book(reservation_id, scopes, cost)
            return {}
        names = tuple(dict.fromkeys([scope.name for scope in scopes]))
        asked = Settling(reservation_id, names, limited, cost, reserved)
        return await self._run(lambda con: self._settle(con, asked), asked, kept=True)

    def _settle(self, con: sqlite3.Connection, asked: Settling) -> Balances:
        self._sweep_now_and_then(con)
        limited = [scope.name for scope in asked.limited]
        if asked.usual and rows.take(con, asked):  # its row is gone with it: nothing else has to say that it is settled
            self._note_booked(asked.id)
            return rows.balances(con, limited)
        booked = asked.id in self._booked or not rows.note_settled(con, asked.id)
        held = rows.taken(con, asked.id)
        if held is None and booked:
            return rows.balances(con, limited)
        if held is not None:  # maybe there again, after a commit that came to nothing
            rows.add(con, held[1], spent=0, reserved=-held[0])
        rows.add(con, asked.names, spent=asked.cost, reserved=0)
        return rows.balances(con, limited)

    def _settle_many(self, con: sqlite3.Connection, asked: list[Settling]) -> list[Balances]:
        if len(asked) == 1 or not all(one.usual for one in asked):
            return [self._settle(con, one) for one in asked]
        self._sweep_now_and_then(con)
        balances = rows.settle_many(con, asked)
        for one in asked:
            self._note_booked(one.id)
        return balances

    def _turn(self, con: sqlite3.Connection, asked: list[Reserving | Settling]) -> list[Balances | Refused]:
        """Do what a turn of the loop asked for. What was spent is known before more is reserved, and what it gave back is there."""
        settling = [one for one in asked if isinstance(one, Settling)]
        reserving = [one for one in asked if isinstance(one, Reserving)]
        settled = iter(self._settle_many(con, settling) if settling else ())
        reserved = iter(self._reserve_many(con, reserving) if reserving else ())
        return [next(settled) if isinstance(one, Settling) else next(reserved) for one in asked]

    def _note_booked(self, reservation_id: str) -> None:
        self._booked[reservation_id] = None
        if len(self._booked) > _MOST_BOOKED:
            self._booked.popitem(last=False)

    def _book(self, reservation_id: str, scopes: Sequence[Scope], cost: int) -> None:
        """Add to each scope, together with the next write: no decision hangs on it."""
        self._note_booked(reservation_id)
        names = list(dict.fromkeys([scope.name for scope in scopes]))
        if cost and (self._dropped != self._db.dropped or not self._due.add(reservation_id, names, cost)):
            self._due, self._dropped = _Due(), self._db.dropped
            self._due.add(reservation_id, names, cost)
            self._db.ride_with(self._due.book)

    async def balance(self, names: Sequence[str]) -> Mapping[str, Balance]:
        """Return the balances. Raises BudgetUnavailable."""
        self._db.flush_all()
        try:
            return self._db.read(lambda con: rows.balances(con, names))
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
        self, run: Callable[[sqlite3.Connection], Balances], asked: Reserving | Settling, *, kept: bool = False
    ) -> Balances:
        try:
            return await self._db.run(run, wait_s=WAIT_S, kept=kept, many=self._turn, asked=asked)
        except (StorageError, HomeUnusable) as exc:
            raise _unavailable(exc) from exc

    def _sweep_now_and_then(self, con: sqlite3.Connection) -> None:
        now_s = time.monotonic()
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + SWEEP_EVERY_S
        owners = [process for (process,) in con.execute("SELECT DISTINCT process FROM reservations")]
        for process in self._home.dead(owners):
            found = con.execute("SELECT id, amount, scopes FROM reservations WHERE process = ?", (process,)).fetchall()
            for reservation_id, amount, names in found:
                con.execute("INSERT OR IGNORE INTO settled VALUES (?, ?)", (reservation_id, time.time()))
                rows.drop(con, reservation_id)
                rows.add(con, json.loads(names), spent=amount, reserved=0)
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


def _or_refusal(reserve: Callable[[], Balances]) -> Balances | Refused:
    try:
        return reserve()
    except BudgetExceeded as exc:
        return Refused(exc)


def _unavailable(exc: StorageError | HomeUnusable) -> BudgetUnavailable:
    return BudgetUnavailable(f"The budget cannot be checked: {exc.summary} Nothing was sent.", hint=exc.hint)
