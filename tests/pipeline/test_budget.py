"""budget: reserved before, settled after, released in any case; never over a hard limit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import Ending, Usage
from nbllm.core.ports import Balance, Scope
from nbllm.core.pricing import Price, worst_case
from nbllm.core.reply import Reply
from nbllm.storage.memory import MemoryBudgets
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import PRICE, priced_like, rung
from tests.pipeline.world import World, now_s, outcome, size_bytes

TEXT = "hello"


def worst(world: World, tokens: int, text: str = TEXT, price: Price = PRICE) -> Decimal:
    """The most that a call with that limit on tokens can cost."""
    return worst_case(size_bytes(world.request(text).content), tokens, price)


class Uses(FakeProvider):
    """Says that it used that many tokens."""

    def __init__(self, input_tokens: int, output_tokens: int, *steps: Any, **more: Any) -> None:
        super().__init__(*steps, **more)
        self._usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)

    async def send(self, wire: Any, progress: Any) -> Ending:
        return replace(await super().send(wire, progress), usage=self._usage)


class Watched(MemoryBudgets):
    """Notes the most that was ever spent and reserved together on a scope."""

    def __init__(self) -> None:
        super().__init__()
        self.most: dict[str, Decimal] = {}

    def _add(self, names: Any, **amounts: Any) -> None:
        names = tuple(names)
        super()._add(names, **amounts)
        for name in names:
            held = self._of(name)
            self.most[name] = max(self.most.get(name, Decimal(0)), held.spent_usd + held.reserved_usd)


# ---------------------------------------------------------------------------------------------------- reserve and settle


@pytest.mark.parametrize("limited", [False, True])
def test_the_true_cost_is_booked_once_on_every_scope(limited: bool) -> None:
    """Session, day, feature, user and request each get the attempt's cost, limited or not; nothing stays reserved."""

    async def run() -> None:
        world = World(Uses(100, 50), settings={"budget_session_usd": "5"} if limited else {})
        reply = await world.ask(TEXT, feature="f", user="u", budget_usd=Decimal(1))
        cost = Decimal("0.0002")
        assert reply.cost_usd == cost
        names = [name for name, balance in world.budgets._balances.items() if balance.spent_usd == cost]
        assert sorted(name.partition(":")[0] for name in names) == ["day", "feature", "request", "session", "user"]
        assert "day:2026-01-01" in names
        await world.close()

    run_virtual(run())


def test_the_worst_case_is_reserved_while_it_runs() -> None:
    """While a request is out, its bytes as input and its limit on output are held against the budget."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["x"], first_after_s=1)), settings={"budget_session_usd": "5"})
        call = world.start(TEXT, max_tokens=300)
        await asyncio.sleep(0.5)
        assert world.reserved()["session:s"] == worst(world, 300)
        reply = await call
        assert reply.attempts[0].worst_case_usd == worst(world, 300)
        assert world.reserved() == {}
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    "fault",
    [
        errors.ServerFailed("no", status=500),
        errors.BadParameter("no", status=400),
        errors.ConnectionFailed("no", whole_endpoint=True),
        Script(pieces=["half"], then=errors.StreamInterrupted),
        RuntimeError("bug"),
    ],
)
def test_a_failure_releases_what_it_did_not_cost(fault: Any) -> None:
    """Failed attempts keep what they cost and release the rest; retries reserve and settle each for itself."""

    async def run() -> None:
        world = World(FakeProvider(default=fault), settings={"budget_session_usd": "5"})
        await outcome(world.ask(TEXT, watched=True))
        costs = [a.cost_usd for a in world.ledger.attempts_by_id.values()]
        assert world.spent() == sum((c for c in costs if c is not None), Decimal(0))
        assert world.reserved() == {}
        await world.close()

    run_virtual(run())


def test_an_overrun_is_booked_in_full_and_blocks_the_next() -> None:
    """A provider that ignores max_tokens costs what it costs; the budget is over, and the next attempt is refused."""

    async def run() -> None:
        world = World(Uses(100, 50_000), settings={"budget_session_usd": "0.01"})
        reply = await world.ask(TEXT, max_tokens=100)
        assert reply.cost_usd == world.spent() == Decimal("0.1001")
        with pytest.raises(errors.BudgetExceeded) as caught:
            await world.ask("next", max_tokens=1)
        assert caught.value.spent_usd == Decimal("0.1001")
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


def test_every_attempt_is_asked_about() -> None:
    """No retry escapes the budget: when what is left does not hold another try, it is refused."""

    async def run() -> None:
        half = Script(pieces=["word " * 400], then=errors.StreamInterrupted)
        world = World(FakeProvider(default=half), settings={"budget_session_usd": "0.0025"})
        with pytest.raises(errors.BudgetExceeded):
            await world.ask(TEXT, max_tokens=1000, watched=True, retries=10)
        assert world.provider.calls == 2
        assert world.spent() <= Decimal("0.0025")
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- lowering


def test_max_tokens_is_lowered_to_what_fits_and_said_once() -> None:
    """When only the room for the answer does not fit, max_tokens on the wire is lowered to exactly what does."""

    async def run() -> None:
        world = World()
        for tokens in (256, 300, 999):
            limit = worst(world, tokens)
            reply = await world.ask(TEXT, budget_usd=limit, cache="off")
            assert world.provider.requests[-1].content.max_tokens == tokens
            notes = [note for note in reply.notes if "max_tokens" in note]
            assert len(notes) == 1
            assert f"lowered to {tokens}" in notes[0]
        reply = await world.ask(TEXT, budget_usd=worst(world, 1000), cache="off")
        assert world.provider.requests[-1].content.max_tokens is None
        assert not reply.notes
        await world.close()

    run_virtual(run())


def test_under_256_tokens_it_is_refused() -> None:
    """An answer cut that short is of no use: the attempt is refused, the error says what there is and what was needed."""

    async def run() -> None:
        world = World()
        limit = worst(world, 255)
        with pytest.raises(errors.BudgetExceeded, match="Nothing was sent") as caught:
            await world.ask(TEXT, budget_usd=limit)
        error = caught.value
        assert (error.limit_usd, error.spent_usd, error.reserved_usd) == (limit, 0, 0)
        assert error.needed_usd > limit
        assert error.scope.startswith("request:")
        assert error.hint
        assert world.provider.calls == 0
        assert not any("lowered" in note for note in getattr(error, "__notes__", []))
        reply = await world.ask(TEXT, budget_usd=worst(world, 100), max_tokens=100)
        assert not reply.notes, "who asks for little gets it"
        await world.close()

    run_virtual(run())


def test_the_question_itself_must_fit() -> None:
    """An input that alone costs more than there is cannot be helped by lowering anything."""

    async def run() -> None:
        world = World()
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("x" * 10_000, budget_usd=Decimal("0.005"))
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())


def test_lowering_does_not_change_the_key() -> None:
    """A complete answer under a lowered limit is a hit for the same question afterwards."""

    async def run() -> None:
        world = World()
        assert (await world.ask(TEXT, budget_usd=worst(world, 300))).notes
        assert (await world.ask(TEXT)).source == "cache"
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- prices


def test_an_unpriced_model_under_a_hard_budget_is_refused() -> None:
    """Unknown is not 0: with a hard budget such a model is refused with what to do; without one it is called, cost unknown."""

    async def run() -> None:
        world = World(rungs={"one/m": priced_like(rung(), price=None)})
        with pytest.raises(errors.UnpricedModel, match="price of one/m is unknown") as caught:
            await world.ask(TEXT, budget_usd=Decimal(5))
        assert "input_usd_per_mtok" in caught.value.hint
        assert "so the request budget cannot hold" in str(caught.value), "the scope's id is ours and says nothing to anybody"
        assert world.provider.calls == 0
        reply = await world.ask(TEXT)
        assert (reply.cost_usd, reply.cost_basis) == (None, "unknown")
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("limits", [(None, None), (None, 4096), (100, 4096)])
def test_a_price_of_zero_is_a_price(limits: tuple[int | None, int | None]) -> None:
    """A model of one's own, stated at 0, is called under a hard budget, its limit on tokens known or not."""

    async def run() -> None:
        free = priced_like(rung(), price=Price(Decimal(0), Decimal(0)), max_output_tokens=limits[0], context_tokens=limits[1])
        world = World(rungs={"one/m": free}, settings={"budget_session_usd": "0.01"})
        reply = await world.ask(TEXT)
        assert (reply.cost_usd, reply.cost_basis) == (0, "exact")
        assert world.provider.requests[0].content.max_tokens is None
        assert not reply.notes
        await world.close()

    run_virtual(run())


def test_without_any_known_limit_the_budget_sets_one() -> None:
    """Nobody knows how long the answer may be: max_tokens is what nearly every server takes, less where the budget holds less."""

    async def run() -> None:
        world = World(rungs={"one/m": priced_like(rung(), max_output_tokens=None, context_tokens=None)})
        rich = await world.ask(TEXT, budget_usd=worst(world, 2_000_000))
        assert world.provider.requests[0].content.max_tokens == 4096
        assert "max_tokens was set to 4096" in rich.notes[0]
        poor = await world.ask(TEXT, budget_usd=worst(world, 3000), sample=1)
        assert world.provider.requests[1].content.max_tokens == 3000
        assert "lowered to 3000" in poor.notes[0]
        with pytest.raises(errors.BudgetExceeded):
            await world.ask("other", budget_usd=worst(world, 200))
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- trouble with the store


class Down(MemoryBudgets):
    """A store that fails where it is told to."""

    def __init__(self, *fails: str) -> None:
        super().__init__()
        self.fails = fails

    async def reserve(self, *args: Any) -> Any:
        if "reserve" in self.fails:
            raise errors.BudgetUnavailable("The budget cannot be checked: locked. Nothing was sent.")
        return await super().reserve(*args)

    async def settle(self, *args: Any) -> Any:
        if "settle" in self.fails:
            raise errors.BudgetUnavailable("The budget cannot be checked: locked. Nothing was sent.")
        return await super().settle(*args)


def test_a_budget_that_cannot_be_checked_sends_nothing() -> None:
    """A hard budget whose store is out of reach: BudgetUnavailable before anything is sent."""

    async def run() -> None:
        world = World(budgets=Down("reserve"), settings={"budget_session_usd": "5"})
        with pytest.raises(errors.BudgetUnavailable):
            await world.ask(TEXT, "one/m", "two/m", static="sorry")
        assert world.provider.calls == 0
        await world.close()

    run_virtual(run())


def test_without_a_hard_budget_nothing_has_to_be_checked() -> None:
    """No limit, nothing to reserve: a store that is out of reach does not stop the call."""

    async def run() -> None:
        world = World(budgets=Down("reserve"))
        assert (await world.ask(TEXT)).text == "ok"
        await world.close()

    run_virtual(run())


def test_an_answer_that_cannot_be_booked_is_delivered_with_a_note() -> None:
    """After the send the answer is paid for: it is delivered with a note; the reservation blocks rather than lets through."""

    async def run() -> None:
        world = World(budgets=Down("settle"), settings={"budget_session_usd": "5"})
        reply = await world.ask(TEXT)
        assert reply.text == "ok"
        assert any("could not be booked" in note and "Nothing was sent" not in note for note in reply.notes)
        assert world.reserved()["session:s"] > 0
        await world.road.aclose()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- soft limits


def test_one_warning_at_the_soft_limit() -> None:
    """The attempt that crosses 80% carries the one warning; those before and after it do not."""

    async def run() -> None:
        world = World(Uses(0, 1000), settings={"budget_session_usd": "0.02"})
        notes = [(await world.ask(f"q{n}", max_tokens=1000)).notes for n in range(9)]
        assert [any("soft limit" in note for note in said) for said in notes] == [False] * 7 + [True, False]
        (said,) = [note for note in notes[7] if "soft" in note]
        assert "session" in said
        assert "$0.016 of $0.02" in said
        await world.close()

    run_virtual(run())


def test_one_warning_of_concurrent_calls() -> None:
    """Of calls that cross the soft limit together one carries the warning."""

    async def run() -> None:
        world = World(Uses(0, 1000, default=Script(pieces=["x"], first_after_s=1)), settings={"budget_session_usd": "0.1"})
        replies = await asyncio.gather(*(world.ask(f"q{n}", max_tokens=1000) for n in range(45)))
        assert sum(any("soft limit" in note for note in reply.notes) for reply in replies) == 1
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- many callers


@pytest.mark.parametrize("scope", ["session", "day", "feature", "user"])
@pytest.mark.parametrize("honest", [True, False])
def test_peer_bug_a_budget_worth_two_calls_lets_two_through(scope: str, honest: bool) -> None:
    """200 callers at once on a budget worth two calls: none is over, whoever is refused is told so, nothing stays reserved."""

    async def run() -> None:
        settings: Mapping[str, Any] = {
            "session": {"budget.session_usd": "0.00415"},
            "day": {"budget.day_usd": "0.00415"},
            "feature": {"budget.features.f": "0.00415"},
            "user": {"budget.users.u": "0.00415"},
        }[scope]
        fake = FakeProvider if not honest else (lambda **more: Uses(10, 1000, **more))
        provider = fake(default=Script(pieces=["x"], first_after_s=1))
        world = World(provider, budgets=Watched(), settings=settings)
        results = await asyncio.gather(
            *(outcome(world.ask(f"question {n:03}", feature="f", user="u", max_tokens=1000)) for n in range(200))
        )
        done = [r for r in results if isinstance(r, Reply)]
        assert len(done) + sum(isinstance(r, errors.BudgetExceeded) for r in results) == 200
        assert len(done) >= 2
        limited = next(name for name in world.budgets.most if name.startswith(f"{scope}:"))
        assert world.budgets.most[limited] <= Decimal("0.00415")
        assert provider.calls == len(done)
        await world.close()

    run_virtual(run())


def test_two_callers_lower_beside_each_other() -> None:
    """Who is refused while others reserve beside it tries with what is left, a few times; never over."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["x"], first_after_s=1)), budgets=Watched())
        world.configure(**{"budget.session_usd": "0.01"})
        results = await asyncio.gather(*(outcome(world.ask(f"q{n}")) for n in range(20)))
        sent = [request.content.max_tokens for request in world.provider.requests]
        assert sum(isinstance(r, Reply) for r in results) == len(sent) >= 5
        assert all(limit is None or limit >= 256 for limit in sent)
        assert world.budgets.most["session:s"] <= Decimal("0.01")
        await world.close()

    run_virtual(run())


class Slow(MemoryBudgets):
    """A store that takes its time, before and after; who stops waiting changes nothing."""

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        await asyncio.sleep(1)
        reserved = await super().reserve(reservation_id, scopes, amount_usd)
        await asyncio.sleep(1)
        return reserved

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        booked = await super().settle(reservation_id, scopes, cost_usd)
        await asyncio.sleep(1)
        return booked


@pytest.mark.parametrize("cache", ["use", "off"])
@pytest.mark.parametrize("at_s", [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5])
def test_cancelled_at_any_moment_nothing_stays_reserved(cache: str, at_s: float) -> None:
    """Cancelled while reserving, sending, receiving or settling: what was sent is booked at its estimate, the rest released."""

    async def run() -> None:
        fake = FakeProvider(Script(pieces=["one ", "two"], first_after_s=1, gap_s=1, end_after_s=0.5))
        world = World(fake, budgets=Slow(), settings={"budget_session_usd": "5"})
        began = now_s()
        call = world.start(TEXT, cache=cache, watched=True)
        await asyncio.sleep(at_s)
        call.cancel()
        result = await outcome(call)
        if not isinstance(result, Reply):
            assert now_s() - began <= at_s + 0.1
        await asyncio.sleep(5)
        costs = [a.cost_usd for a in world.ledger.attempts_by_id.values()]
        assert world.spent() == sum((c for c in costs if c is not None), Decimal(0))
        assert (world.spent() > 0) == (at_s > 2 or fake.calls > 0)
        await world.close()

    run_virtual(run())
