"""Budgets on Redis, shared by all replicas: reserve and settle, each one script, exact to the picodollar.

A process that reserves gives a sign of life; reservations of one that gave none for LIFE_S seconds are spent in full, so what a
kill leaves behind blocks rather than lets through. Redis gone: reserve raises BudgetUnavailable, and what was to be settled is
settled when Redis is back. A Redis that comes back empty is told what this process knew to be spent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import islice
from typing import Any, Literal
from uuid import uuid4

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetUnavailable, StorageError
from nbllm.storage.budget_rows import refuse_if_full
from nbllm.storage.money import PICO, to_pico, to_usd
from nbllm.storage.redis_budgets_lua import BALANCE, BEAT, BOOK, RESERVE, SETTLE, SWEEP
from nbllm.storage.redis_link import Link, RedisGone, Script
from nbllm.storage.texts import storable

_log = logging.getLogger("nbllm.redis")
LIFE_S = 45.0
BEAT_S = 10.0
SWEEP_EVERY_S = 30.0
SETTLED_KEPT_S = 600
SWEPT_KEPT_S = 86400
DAY_S = 86400
_KEPT_S = {"request": 6 * 3600, "day": 8 * DAY_S, "session": 90 * DAY_S}
"""How long scopes are kept after their last use, by the first part of their name; those of features and users for good."""
_AGAIN_S = 1.0
_MOST_KNOWN = 10_000
_MOST_DUE = 100_000
"""What is settled later, when Redis is back: beyond so many the oldest stay reserved."""
_TOGETHER = 100

OnStateLoss = Literal["refuse", "allow"]


class RedisBudgets:
    """The BudgetStore of all replicas. on_state_loss "allow": without Redis everything may be spent, and is booked later."""

    def __init__(
        self, link: Link, *, on_state_loss: OnStateLoss = "refuse", life_s: float = LIFE_S, sweep_every_s: float = SWEEP_EVERY_S
    ) -> None:
        self._link = link
        self._prefix = link.key("budget:")
        self._allow = on_state_loss == "allow"
        self._life_s = life_s
        self._sweep_every_s = sweep_every_s
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._token = uuid4().hex
        self._open: set[str] = set()
        self._known: OrderedDict[str, int] = OrderedDict()
        self._booked: OrderedDict[str, None] = OrderedDict()
        """Ids that were settled here."""
        self._sums: dict[str, int] = {}
        self._batch: tuple[str, dict[str, int]] | None = None
        self._due: dict[str, tuple[list[str], int]] = {}
        self._booking: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._sweep_at_s = time.monotonic()

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        """Reserve in all scopes or in none. An id that was reserved or settled before changes nothing."""
        await self._begun()
        if reservation_id in self._booked:
            return await self.balance(list(dict.fromkeys(scope.name for scope in scopes)))
        names = [storable(scope.name) for scope in scopes]
        args: list[Any] = [self._prefix, self._token, reservation_id, to_pico(amount_usd), self._life_s]
        for name, scope in zip(names, scopes, strict=True):
            args += [name, *_room(scope, amount_usd), _kept_s(name), self._known.get(name, 0)]
        self._open.add(reservation_id)
        try:
            refused, found = await self._run(RESERVE, args)
        except BudgetUnavailable:
            if self._allow:
                return {}
            self._settle_later(reservation_id, [], 0)  # it may have been reserved all the same
            raise
        after = self._balances(scopes, found)
        if refused:
            self._open.discard(reservation_id)
            refuse_if_full(scopes[refused - 1], after[scopes[refused - 1].name], amount_usd)
        self._look_after()
        return after

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        """Book the cost, once per id, and drop the reservation.

        Where nothing is limited and nothing was reserved there is nothing to decide: no balances are read or returned.
        """
        self._fresh_after_fork()
        cost = to_pico(cost_usd)
        names = list(dict.fromkeys(storable(scope.name) for scope in scopes))
        if reservation_id not in self._open and not any(s.hard_usd is not None or s.soft_usd is not None for s in scopes):
            self._book(reservation_id, names, cost)
            return {}
        await self._begun()
        if reservation_id in self._booked:
            return await self.balance(list(dict.fromkeys(scope.name for scope in scopes)))
        self._settle_later(reservation_id, names, cost)
        try:
            found = await self._settle_now(reservation_id)
        except BudgetUnavailable:
            if self._allow:
                return {}
            raise
        return self._balances([Scope(name) for name in dict.fromkeys(scope.name for scope in scopes)], found)

    async def balance(self, names: Sequence[str]) -> Mapping[str, Balance]:
        """Return the balances. Raises BudgetUnavailable."""
        await self._begun()
        try:
            found = await self._run(BALANCE, [self._prefix, *(storable(name) for name in names)])
        except BudgetUnavailable:
            if self._allow:
                return {name: Balance(to_usd(self._known.get(storable(name), 0)), Decimal(0)) for name in names}
            raise
        return self._balances([Scope(name) for name in names], found)

    async def sweep(self) -> int:
        """Spend what dead processes had reserved; return how many reservations there were.

        Only where Redis has answered for so long that every living process has given a sign of life since.
        """
        if self._link.up_for_s() < self._life_s:
            return 0
        return int(await self._run(SWEEP, [self._prefix, SWEPT_KEPT_S]))

    async def aclose(self) -> None:
        """Book what waits, and stop giving signs of life."""
        beating, self._beating = self._beating, None
        if beating is not None and beating.get_loop() is asyncio.get_running_loop():
            beating.cancel()
            await asyncio.wait([beating])
        if self._booking is not None:
            await asyncio.wait([self._booking])
        with suppress(BudgetUnavailable):
            await self._settle_due()

    def close(self) -> None:
        """Do nothing: the link is closed by whoever opened it."""

    # ------------------------------------------------------------------------------------------------ settling

    def _settle_later(self, reservation_id: str, names: list[str], cost: int) -> None:
        self._due[reservation_id] = names, cost
        if len(self._due) > _MOST_DUE:
            self._due.pop(next(iter(self._due)))
        self._look_after()

    async def _settle_now(self, reservation_id: str) -> list[Any]:
        if reservation_id not in self._due:
            return []  # settled meanwhile
        names, cost = self._due[reservation_id]
        args: list[Any] = [self._prefix, reservation_id, cost, SETTLED_KEPT_S]
        for name in names:
            args += [name, _kept_s(name)]
        # Not lost with its caller: what a cancelled call cost is booked as well.
        found: list[Any] = await asyncio.shield(self._run(SETTLE, args))
        self._due.pop(reservation_id, None)
        self._open.discard(reservation_id)
        self._remember(reservation_id)
        return found

    def _remember(self, reservation_id: str) -> None:
        self._booked[reservation_id] = None
        if len(self._booked) > _MOST_KNOWN:
            self._booked.popitem(last=False)

    async def _settle_due(self) -> None:
        while ids := list(islice(self._due, _TOGETHER)):
            await asyncio.gather(*(self._settle_now(reservation_id) for reservation_id in ids))
        while (self._sums or self._batch) and self._booking is None:
            await self._book_now()

    def _book(self, reservation_id: str, names: list[str], cost: int) -> None:
        """Add to each scope, once per id, together with what else comes meanwhile: no decision hangs on it."""
        if reservation_id in self._booked:
            return
        self._remember(reservation_id)
        if not cost:
            return
        for name in names:
            self._sums[name] = self._sums.get(name, 0) + cost
        if self._booking is None or self._booking.done():
            self._booking = asyncio.get_running_loop().create_task(self._book_all())

    async def _book_all(self) -> None:
        try:
            while self._sums or self._batch:
                await self._book_now()
        except BudgetUnavailable:
            self._look_after()
        finally:
            self._booking = None

    async def _book_now(self) -> None:
        """Book what has come together. One that fails keeps its id: should Redis have booked it, it is not booked again."""
        if self._batch is None:
            self._batch, self._sums = (uuid4().hex, self._sums), {}
        args: list[Any] = [self._prefix, self._batch[0], SETTLED_KEPT_S]
        for name, cost in self._batch[1].items():
            args += [name, cost, _kept_s(name)]
        await self._run(BOOK, args)
        self._batch = None

    # ------------------------------------------------------------------------------------------------ life

    def _look_after(self) -> None:
        """See to it, in the background, that this process is known to live and that what could not be booked is."""
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        beat_at_s = time.monotonic() + min(BEAT_S, self._life_s / 4)
        while self._open or self._due or self._sums or self._batch:
            await asyncio.sleep(min(_AGAIN_S, self._life_s / 8))
            try:
                if time.monotonic() >= beat_at_s:
                    await self._run(BEAT, [self._prefix, self._token, self._life_s])
                    beat_at_s = time.monotonic() + min(BEAT_S, self._life_s / 4)
                await self._settle_due()
                if time.monotonic() >= self._sweep_at_s:
                    self._sweep_at_s = time.monotonic() + self._sweep_every_s
                    await self.sweep()
            except BudgetUnavailable:
                pass  # the next round tries again
            except Exception:  # without signs of life all that is reserved here would be spent by others
                _log.exception("Budgets on Redis could not be looked after.")

    async def _begun(self) -> None:
        """Have what was only to be added booked, so that balances are whole; in a forked child begin anew."""
        self._fresh_after_fork()
        if self._booking is not None:
            await asyncio.wait([self._booking])

    def _fresh_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    # ------------------------------------------------------------------------------------------------ values

    def _balances(self, scopes: Sequence[Scope], found: Sequence[Any]) -> dict[str, Balance]:
        after: dict[str, Balance] = {}
        for scope, (spent, reserved) in zip(scopes, found, strict=True):
            after[scope.name] = Balance(to_usd(int(spent)), to_usd(int(reserved)))
            name = storable(scope.name)
            self._known[name] = max(self._known.pop(name, 0), int(spent))
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return after

    async def _run(self, script: Script, args: list[Any]) -> Any:
        try:
            return await self._link.script(script, [], args)
        except StorageError as exc:
            hint = exc.hint if isinstance(exc, RedisGone) else ""
            raise BudgetUnavailable(f"The budget cannot be checked: {exc.summary} Nothing was sent.", hint=hint) from exc


def _room(scope: Scope, amount_usd: Decimal) -> tuple[str, str]:
    """Return what may be held already so that the amount fits, and from where on nothing fits, in picodollars, both exactly.

    held + amount > limit is held > floor(limit - amount), held being whole; spent >= limit is spent >= ceil(limit).
    """
    if scope.hard_usd is None or scope.hard_usd == Decimal("Infinity"):
        return "", ""
    if amount_usd > scope.hard_usd:
        return "-", "0"
    room = ((scope.hard_usd - amount_usd) * PICO).to_integral_value(ROUND_FLOOR)
    return str(int(room)), str(int((scope.hard_usd * PICO).to_integral_value(ROUND_CEILING)))


def _kept_s(name: str) -> int | str:
    return _KEPT_S.get(name.partition(":")[0], "")
