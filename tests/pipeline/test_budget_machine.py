"""budget as a state machine: attempts that begin, end, fail and are cancelled in any order never spend more than was allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nbllm import errors
from nbllm._virtual_time import VirtualTimeLoop
from nbllm.core.messages import NullSink, Request, Sink
from nbllm.core.ports import Balance, Scope
from nbllm.core.reply import Reply
from nbllm.pipeline.budget import BudgetStage
from nbllm.settings import BudgetSettings
from nbllm.storage.memory import MemoryBudgets
from tests.pipeline.making import book, clock, reply, request, with_content
from tests.pipeline.world import outcome, size_bytes

LIMITS = st.decimals("0.0005", "0.02", places=4)


async def turns_pass(turns: int) -> None:
    """Let the loop turn so often."""
    for _ in range(turns):
        await asyncio.sleep(0)


class Yielding(MemoryBudgets):
    """Lets others in before and after it reserves, so that a cancellation can come at each of these moments."""

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        await turns_pass(4)
        reserved = await super().reserve(reservation_id, scopes, amount_usd)
        await turns_pass(6)
        return reserved

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        booked = await super().settle(reservation_id, scopes, cost_usd)
        await turns_pass(2)
        return booked


class Budgeting(RuleBasedStateMachine):
    """Each attempt costs at most what was reserved for it, as with a provider that honours max_tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.store = Yielding()
        self.limits = BudgetSettings()
        self.sent: list[tuple[Request, asyncio.Future[tuple[Decimal, bool]]]] = []
        self.calls: list[asyncio.Task[Any]] = []
        self.paid = Decimal(0)
        self.number = 0

    @initialize(session=st.none() | LIMITS, feature=st.none() | LIMITS)
    def limit(self, session: Decimal | None, feature: Decimal | None) -> None:
        self.limits = BudgetSettings(session_usd=session, features={} if feature is None else {"f": feature})

    async def _inner(self, asked: Request, sink: Sink) -> Reply:
        """Stay open until the machine says what it cost and whether it failed."""
        assert asked.call is not None
        end: asyncio.Future[tuple[Decimal, bool]] = asyncio.get_running_loop().create_future()
        entry = (asked, end)
        self.sent.append(entry)
        share, fails = Decimal(1), True
        try:
            share, fails = await end
        finally:
            self.sent.remove(entry)
            cost_usd = (asked.call.reserved_usd or Decimal(0)) * share
            self.paid += cost_usd
            book(asked, failed=fails, cost_usd=cost_usd)
        if fails:
            raise errors.ServerFailed("no", status=500)
        return reply()

    def _turn(self, turns: int) -> None:
        self.runner.run(turns_pass(turns))

    @rule(
        feature=st.sampled_from([None, "f", "g"]),
        max_tokens=st.sampled_from([None, 10, 300, 900]),
        own=st.none() | LIMITS,
        turns=st.integers(0, 12),
    )
    def begin(self, feature: str | None, max_tokens: int | None, own: Decimal | None, turns: int) -> None:
        async def start() -> asyncio.Task[Any]:
            self.number += 1
            made = request(call_id=f"c{self.number}", feature=feature, budget_usd=own)
            stage = BudgetStage(self._inner, self.store, lambda: self.limits, size_bytes, clock())
            call = stage(with_content(made, max_tokens=max_tokens), NullSink())
            return asyncio.get_running_loop().create_task(outcome(call))

        self.calls.append(self.runner.run(start()))
        self._turn(turns)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), share=st.decimals(0, 1, places=2), fails=st.booleans(), turns=st.integers(0, 4))
    def end(self, data: st.DataObject, share: Decimal, fails: bool, turns: int) -> None:
        _, end = data.draw(st.sampled_from(self.sent))
        if not end.done():
            self.runner.get_loop().call_soon(end.set_result, (share, fails))
        self._turn(turns)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), turns=st.integers(0, 4))
    def cancel(self, data: st.DataObject, turns: int) -> None:
        self.runner.get_loop().call_soon(data.draw(st.sampled_from(self.calls)).cancel)
        self._turn(turns)

    @invariant()
    def never_over(self) -> None:
        balances = self.store._balances
        for name, limit in (("session:s", self.limits.session_usd), ("feature:f", self.limits.features.get("f"))):
            if limit is not None and name in balances:
                assert balances[name].spent_usd + balances[name].reserved_usd <= limit, name
        assert all(b.reserved_usd >= 0 and b.spent_usd >= 0 for b in balances.values())

    @invariant()
    def what_runs_is_reserved(self) -> None:
        if self.limits.session_usd is not None:
            held = sum((asked.call.reserved_usd or Decimal(0) for asked, _ in self.sent if asked.call), Decimal(0))
            session = self.store._balances.get("session:s", Balance(Decimal(0), Decimal(0)))
            assert session.reserved_usd >= held

    def teardown(self) -> None:
        async def finish() -> None:
            for call in self.calls:
                call.cancel()
            for result in await asyncio.gather(*self.calls, return_exceptions=True):
                assert isinstance(result, Reply | errors.ServerFailed | errors.BudgetExceeded | asyncio.CancelledError), result
            await asyncio.sleep(1)

        self.runner.run(finish())
        self.runner.close()
        assert not self.sent
        balances = self.store._balances
        assert all(b.reserved_usd == 0 for b in balances.values()), balances
        assert self.paid == (balances["session:s"].spent_usd if "session:s" in balances else 0)


Budgeting.TestCase.settings = settings(
    max_examples=80, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBudgeting = Budgeting.TestCase
TestBudgeting.__doc__ = "Spent and reserved are never over a hard limit; at rest nothing is reserved, and what was paid is booked."
