"""budget: reserves an attempt's worst case, settles with the true cost, releases in finally."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

from nbllm.core.budget import crossed, fit_max_tokens, room_usd, scopes_of, utc_day, worst_case_usd
from nbllm.core.messages import Call, Chat, Content, Request, Rung, Sink
from nbllm.core.ports import Balance, BudgetStore, Scope
from nbllm.core.pricing import format_usd
from nbllm.core.reply import Reply
from nbllm.errors import BudgetExceeded, BudgetUnavailable, UnpricedModel
from nbllm.pipeline.stage import Clock, Stage, call_of, rung_of
from nbllm.settings import BudgetSettings

RequestBytes = Callable[[Content], int]
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
        )
        reservation_id = uuid4().hex
        request, before = await self._reserve(request, rung, call, scopes, reservation_id)
        tried = len(call.attempts)
        try:
            return await self._inner(request, sink)
        finally:
            cost_usd = _cost_usd(call, tried)
            await self._settle(call, reservation_id, scopes, cost_usd, before)

    async def _reserve(
        self, request: Request, rung: Rung, call: Call, scopes: Sequence[Scope], reservation_id: str
    ) -> tuple[Request, Mapping[str, Balance]]:
        hard = [scope for scope in scopes if scope.hard_usd is not None]
        call.reserved_usd = None
        if rung.price is None:
            if hard:
                raise UnpricedModel(
                    f"The price of {rung.id} is unknown, so the {hard[0].name} budget cannot hold. Nothing was sent.",
                    hint="State input_usd_per_mtok and output_usd_per_mtok on the endpoint (0 for a model of your own).",
                )
            return request, {}
        size_bytes = self._request_bytes(request.content)
        wanted = _output_limit(request, rung)
        if wanted is None and not rung.price.output_usd_per_mtok:
            wanted = 0  # free output needs no bound
        call.reserved_usd = worst_case_usd(size_bytes, wanted, rung.price) if wanted is not None else None
        if not hard:
            return request, {}
        for _ in range(_TRIES):
            if call.reserved_usd is not None:
                try:
                    return request, await self._store.reserve(reservation_id, scopes, call.reserved_usd)
                except BudgetExceeded as exc:
                    refusal: BudgetExceeded | None = exc
            else:
                refusal = None
            balances = await self._store.balance([scope.name for scope in hard])
            room = min(room_usd(scope, balances.get(scope.name)) for scope in hard)
            fitting = fit_max_tokens(room, size_bytes, rung.price, wanted) if isinstance(request.content, Chat) else None
            if fitting is None:
                raise refusal or _refusal(hard, balances, worst_case_usd(size_bytes, 256, rung.price))
            assert isinstance(request.content, Chat)  # noqa: S101 - fitting is None for embeddings
            request = replace(request, content=replace(request.content, max_tokens=fitting))
            wanted = fitting
            call.reserved_usd = worst_case_usd(size_bytes, fitting, rung.price)
            call.note(f"max_tokens was lowered to {fitting} to stay within the budget ({format_usd(room)} left).")
        raise refusal or _refusal(hard, balances, call.reserved_usd or Decimal(0))

    async def _settle(
        self, call: Call, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal, before: Mapping[str, Balance]
    ) -> None:
        try:
            after = await self._store.settle(reservation_id, scopes, cost_usd)
        except BudgetUnavailable as exc:
            # The answer is there and paid for: it is delivered; the reservation stays and blocks rather than lets through.
            call.note(exc.summary)
            return
        del before
        for scope in scopes:
            balance = after.get(scope.name)
            if balance is not None and crossed(scope, balance.spent_usd - cost_usd, balance.spent_usd):
                limit = scope.hard_usd if scope.hard_usd is not None else scope.soft_usd
                call.note(
                    f"The {scope.name.split(':')[0]} budget is past its soft limit: {format_usd(balance.spent_usd)}"
                    f" of {format_usd(limit)} spent."
                )


def _output_limit(request: Request, rung: Rung) -> int | None:
    """Return the most tokens that the answer can have: what was asked for, else the model's limit, else its window."""
    content = request.content
    if not isinstance(content, Chat):
        return 0
    if content.max_tokens is not None:
        return content.max_tokens
    return rung.max_output_tokens or rung.context_tokens


def _cost_usd(call: Call, tried: int) -> Decimal:
    """Return what the attempt cost: 0 when none was made, the worst case when a sent one's cost is unknown."""
    if len(call.attempts) <= tried:
        return Decimal(0)
    attempt = call.attempts[-1]
    if attempt.cost_usd is not None:
        return attempt.cost_usd
    return (call.reserved_usd or Decimal(0)) if attempt.sent else Decimal(0)


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
