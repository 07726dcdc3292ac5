"""budget: reserves an attempt's worst case, settles with the true cost, releases in finally."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from msgspec.structs import replace

from nbllm.core.budget import MINIMUM_TOKENS, crossed, fit_max_tokens, room_usd, scopes_of, utc_day, worst_case_usd
from nbllm.core.messages import Call, Chat, Content, Request, Rung, Sink
from nbllm.core.ports import Balance, BudgetStore, Scope
from nbllm.core.reply import Reply
from nbllm.errors import BudgetError, BudgetExceeded, BudgetUnavailable, UnpricedModel, scope_named
from nbllm.money import format_usd
from nbllm.pipeline.stage import Clock, Stage, call_of, patience_s, rung_of, within
from nbllm.settings import BudgetSettings

RequestBytes = Callable[[Content], int]
ASSUMED_TOKENS = 4096
"""Under a hard budget, max_tokens of a model of which no limit is known: what nearly every server accepts and most answers need."""
_TRIES = 4
"""How often a refused reservation is lowered and tried again while others reserve beside it."""


class BudgetStage:
    """No attempt is sent whose worst case does not fit into every hard budget that it pays into."""

    def __init__(
        self,
        inner: Stage,
        store: BudgetStore,
        limits: Callable[[], BudgetSettings],
        request_bytes: RequestBytes,
        clock: Clock,
    ) -> None:
        self._inner = inner
        self._store = store
        self._limits = limits
        self._request_bytes = request_bytes
        self._clock = clock
        self._name, self._asked = os.urandom(12).hex(), itertools.count()

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Reserve, send, settle with what it cost."""
        call, rung = call_of(request), rung_of(request)
        payer = call.payer
        scopes = scopes_of(
            self._limits(),
            session=call.session,
            call_id=call.call_id,
            day_utc=utc_day(self._clock.epoch_s()),
            feature=payer.feature,
            user=payer.user,
            budget_usd=payer.budget_usd,
            more=payer.scopes,
        )
        reservation_id = f"{self._name}.{next(self._asked)}"
        tried = len(call.attempts)
        try:
            request = await self._reserve(request, rung, call, scopes, reservation_id)
        except BudgetError:
            raise
        except BaseException:
            # Cancelled while the store was busy: it may have reserved all the same.
            await self._settle(call, reservation_id, scopes, Decimal(0), at_most_s=0.0)
            raise
        at_most_s = 1.0
        try:
            return await self._inner(request, sink)
        except asyncio.CancelledError:
            at_most_s = 0.0
            raise
        finally:
            await self._settle(call, reservation_id, scopes, _cost_usd(call, tried), at_most_s=at_most_s)

    async def _reserve(self, request: Request, rung: Rung, call: Call, scopes: Sequence[Scope], reservation_id: str) -> Request:
        hard = [scope for scope in scopes if scope.hard_usd is not None]
        call.reserved_usd = None
        if rung.price is None:
            if hard:
                raise UnpricedModel(
                    f"The price of {rung.id} is unknown, so the {scope_named(hard[0].name)} budget cannot hold. Nothing was sent.",
                    hint="State input_usd_per_mtok and output_usd_per_mtok on the endpoint (0 for a model of your own).",
                )
            return request
        wanted = asked = _output_limit(request, rung)
        if not hard and wanted is None:
            return request  # nothing bounds what it may cost, and nothing has to
        size_bytes = self._request_bytes(request.content)
        if wanted is None:
            wanted = ASSUMED_TOKENS
        call.reserved_usd = worst_case_usd(size_bytes, wanted, rung.price)
        if not hard:
            return request
        refusal: BudgetExceeded | None = None
        for _ in range(_TRIES):
            if call.reserved_usd is not None:
                try:
                    await self._store.reserve(reservation_id, scopes, call.reserved_usd)
                except BudgetExceeded as exc:
                    refusal = exc
                else:
                    return request if wanted == asked else _lowered(request, wanted, call, rung)
            balances = await self._store.balance([scope.name for scope in hard])
            room = min(room_usd(scope, balances.get(scope.name)) for scope in hard)
            fitting = fit_max_tokens(room, size_bytes, rung.price, wanted) if isinstance(request.content, Chat) else None
            if fitting is None:
                raise refusal or _refusal(hard, balances, worst_case_usd(size_bytes, MINIMUM_TOKENS, rung.price))
            wanted = fitting
            call.reserved_usd = worst_case_usd(size_bytes, fitting, rung.price)
        raise refusal or _refusal(hard, balances, call.reserved_usd or Decimal(0))

    async def _settle(
        self, call: Call, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal, *, at_most_s: float
    ) -> None:
        try:
            # A store that is slow books all the same, whoever waits for it; only the warning may be lost.
            settling = self._store.settle(reservation_id, scopes, cost_usd)
            after = await within(patience_s(call, self._clock, at_most_s=at_most_s), settling)
        except BudgetUnavailable as exc:
            # The answer is there and paid for: it is delivered; the reservation stays and blocks rather than lets through.
            call.note(f"What this call cost could not be booked yet: {exc.summary.removesuffix(' Nothing was sent.')}")
            return
        except TimeoutError:
            return
        for scope in scopes if after else ():
            balance = after.get(scope.name)
            if balance is not None and crossed(scope, balance.spent_usd - cost_usd, balance.spent_usd):
                limit = scope.hard_usd if scope.hard_usd is not None else scope.soft_usd
                call.note(
                    f"The {scope.name.split(':')[0]} budget is past its soft limit: {format_usd(balance.spent_usd)}"
                    f" of {format_usd(limit)} spent."
                )


def _lowered(request: Request, max_tokens: int | None, call: Call, rung: Rung) -> Request:
    """Return the request with the max_tokens that was reserved for, and say so."""
    assert isinstance(request.content, Chat)  # noqa: S101 - the worst case of embeddings has no output to lower
    if max_tokens == ASSUMED_TOKENS and not (rung.max_output_tokens or rung.context_tokens):
        call.lowered = (
            f"max_tokens was set to {max_tokens}: a budget needs a bound, and nothing says how long an answer of {rung.id} "
            "can get. Give max_tokens=, or state context_tokens of the endpoint."
        )
    else:
        call.lowered = f"max_tokens was lowered to {max_tokens} to stay within the budget."
    call.note(call.lowered)
    return replace(request, content=replace(request.content, max_tokens=max_tokens))


def _output_limit(request: Request, rung: Rung) -> int | None:
    """Return the most tokens that are paid for: what was asked for, else the model's limit, else its window; None: unknown."""
    content = request.content
    if not isinstance(content, Chat):
        return 0
    limit = content.max_tokens or rung.max_output_tokens or rung.context_tokens
    free = rung.price is not None and not rung.price.output_usd_per_mtok
    return 0 if limit is None and free else limit


def _cost_usd(call: Call, tried: int) -> Decimal:
    """Return what the attempt cost: 0 when none was made, and when its price is unknown, which no hard budget lets happen."""
    total_usd = Decimal(0)
    for attempt in call.attempts[tried:]:
        total_usd += attempt.cost_usd or 0
    return total_usd


def _refusal(hard: Sequence[Scope], balances: Mapping[str, Balance], needed_usd: Decimal) -> BudgetExceeded:
    scope = min(hard, key=lambda s: room_usd(s, balances.get(s.name)))
    balance = balances.get(scope.name) or Balance(Decimal(0), Decimal(0))
    return BudgetExceeded(
        scope=scope.name,
        limit_usd=scope.hard_usd or Decimal(0),
        spent_usd=balance.spent_usd,
        reserved_usd=balance.reserved_usd,
        needed_usd=needed_usd,
    )
