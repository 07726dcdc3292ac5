"""The rows of budgets in state.db: what is read, decided and written within one transaction. Amounts are picodollars."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache

from msgspec import Struct

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetExceeded
from nbllm.storage.money import to_usd
from nbllm.storage.texts import storable

_ADD = (
    "INSERT INTO scopes (name, spent, reserved, touched_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO UPDATE SET "
    "spent = spent + ?2, reserved = reserved + ?3, touched_at = ?4"
)
_RESERVE = (
    "INSERT INTO reservations SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM settled WHERE id = ?1) "
    "ON CONFLICT (id) DO NOTHING"
)
_NOTE_SETTLED = "INSERT OR IGNORE INTO settled VALUES (?, ?)"
_TAKE = "DELETE FROM reservations WHERE id = ? AND amount = ?"
_NONE = Balance(Decimal(0), Decimal(0))


class Reserving(Struct, frozen=True):
    """What is to be reserved. names: of all scopes that are paid into; limited: those on which something hangs."""

    id: str
    names: tuple[str, ...]
    limited: Sequence[Scope]
    amount: int
    amount_usd: Decimal
    process: str


class Settling(Struct, frozen=True):
    """What is to be booked. reserved: what this process has reserved under that id, as far as it knows."""

    id: str
    names: tuple[str, ...]
    limited: Sequence[Scope]
    cost: int
    reserved: Reserving | None

    @property
    def usual(self) -> bool:
        """Whether this process has reserved it, in the same scopes."""
        return self.reserved is not None and self.reserved.names == self.names


class Uneven(Exception):
    """Some of what was to be done in one go was done before: nothing is written, and each is to be done by itself."""


def reserve_many(con: sqlite3.Connection, asked: Sequence[Reserving]) -> list[Mapping[str, Balance] | BudgetExceeded]:
    """Reserve for several, one after the other as they stand, in four statements. Raises Uneven.

    Returns for each what limited scopes hold then, or its refusal, which leaves the others alone.
    """
    if len({one.id for one in asked}) != len(asked):
        raise Uneven
    held = _held(con, asked)
    sums: dict[str, int] = {}
    new, results = [], list[Mapping[str, Balance] | BudgetExceeded]()
    for one in asked:
        try:
            for scope in one.limited:
                refuse_if_full(scope, held.balance(scope.name), one.amount_usd)
        except BudgetExceeded as exc:
            results.append({scope.name: held.balance(scope.name) for scope in one.limited} if known(con, one.id) else exc)
            continue
        new.append((one.id, one.amount, _names_json(one.names), one.process))
        for name in one.names:
            sums[name] = sums.get(name, 0) + one.amount
            held.change(name, 0, one.amount)
        results.append({scope.name: held.balance(scope.name) for scope in one.limited})
    if con.executemany(_RESERVE, new).rowcount != len(new):
        raise Uneven
    now = time.time()
    con.executemany(_ADD, [(storable(name), 0, amount, now) for name, amount in sums.items()])
    return results


def settle_many(con: sqlite3.Connection, asked: Sequence[Settling]) -> list[Mapping[str, Balance]]:
    """Book for several what this process has reserved for them, in three statements. Raises Uneven.

    Returns for each what limited scopes hold once it and those before it are booked.
    """
    now = time.time()
    pairs = [(one, one.reserved.amount) for one in asked if one.reserved is not None]
    if con.executemany(_TAKE, [(one.id, amount) for one, amount in pairs]).rowcount != len(asked):
        raise Uneven
    held = _held(con, asked)
    sums: dict[str, tuple[int, int]] = {}
    results: list[Mapping[str, Balance]] = []
    for one, amount in pairs:
        for name in one.names:
            spent, reserved = sums.get(name, (0, 0))
            sums[name] = spent + one.cost, reserved - amount
            held.change(name, one.cost, -amount)
        results.append({scope.name: held.balance(scope.name) for scope in one.limited})
    con.executemany(_ADD, [(storable(name), spent, reserved, now) for name, (spent, reserved) in sums.items()])
    return results


class _Held:
    """What the limited scopes of several calls hold, as it changes while they are gone through."""

    def __init__(self, amounts: dict[str, tuple[int, int]]) -> None:
        self._amounts = amounts

    def balance(self, name: str) -> Balance:
        spent, reserved = self._amounts[storable(name)]
        return Balance(to_usd(spent), to_usd(reserved))

    def change(self, name: str, spent: int, reserved: int) -> None:
        stored = storable(name)
        held = self._amounts.get(stored)
        if held is not None:
            self._amounts[stored] = held[0] + spent, held[1] + reserved


def _held(con: sqlite3.Connection, asked: Iterable[Reserving | Settling]) -> _Held:
    stored = {storable(scope.name): (0, 0) for one in asked for scope in one.limited}
    return _Held(stored | {name: (spent, reserved) for name, spent, reserved in _rows(con, tuple(stored))})


def reserve(con: sqlite3.Connection, asked: Reserving) -> bool:
    """Insert a reservation; False where its id was reserved or settled before."""
    return bool(con.execute(_RESERVE, (asked.id, asked.amount, _names_json(asked.names), asked.process)).rowcount)


def take(con: sqlite3.Connection, asked: Settling) -> bool:
    """Book what this process has reserved; False where that is not there as it was, and nothing is changed."""
    amount = asked.reserved.amount if asked.reserved is not None else 0
    if not con.execute(_TAKE, (asked.id, amount)).rowcount:
        return False
    add(con, asked.names, spent=asked.cost, reserved=-amount)
    return True


def note_settled(con: sqlite3.Connection, reservation_id: str) -> bool:
    """Note that an id is settled; False where it was before."""
    return bool(con.execute(_NOTE_SETTLED, (reservation_id, time.time())).rowcount)


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
    found = {name: Balance(to_usd(spent), to_usd(reserved)) for name, spent, reserved in _rows(con, tuple(kept.values()))}
    return {name: found.get(stored, _NONE) for name, stored in kept.items()}


def _rows(con: sqlite3.Connection, stored: tuple[str, ...]) -> sqlite3.Cursor:
    marks = ",".join("?" * len(stored))
    return con.execute(f"SELECT name, spent, reserved FROM scopes WHERE name IN ({marks})", stored)  # noqa: S608 - marks


@lru_cache(maxsize=1024)
def _names_json(names: tuple[str, ...]) -> str:
    return json.dumps(names)


@lru_cache(maxsize=1024)
def _names_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def known(con: sqlite3.Connection, reservation_id: str) -> bool:
    """Whether an id was reserved or settled before."""
    sql = "SELECT EXISTS (SELECT 1 FROM reservations WHERE id = ?1) OR EXISTS (SELECT 1 FROM settled WHERE id = ?1)"
    return bool(con.execute(sql, (reservation_id,)).fetchone()[0])


def add(con: sqlite3.Connection, names: Iterable[str], *, spent: int, reserved: int) -> None:
    """Add to each scope."""
    now = time.time()
    con.executemany(_ADD, [(storable(name), spent, reserved, now) for name in names])


def drop(con: sqlite3.Connection, reservation_id: str) -> None:
    """Delete a reservation and give its amount back; none is no error."""
    held = taken(con, reservation_id)
    if held is not None:
        add(con, held[1], spent=0, reserved=-held[0])


def taken(con: sqlite3.Connection, reservation_id: str) -> tuple[int, tuple[str, ...]] | None:
    """Delete a reservation and return its amount and scopes, None for none."""
    row = con.execute("DELETE FROM reservations WHERE id = ? RETURNING amount, scopes", (reservation_id,)).fetchone()
    return (int(row[0]), _names_of(row[1])) if row else None
