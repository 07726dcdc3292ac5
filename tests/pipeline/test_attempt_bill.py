"""attempt: what was counted, what was estimated, and what is unknown."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import Delta, Embed, Ending, Usage
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import priced_like, rung
from tests.pipeline.world import World, failure, outcome


class Counts(FakeProvider):
    """Ends with these counts."""

    def __init__(self, usage: Usage, *steps: Any) -> None:
        super().__init__(*steps)
        self._usage = usage

    async def send(self, wire: Any, progress: Any) -> Ending:
        return replace(await super().send(wire, progress), usage=self._usage)


def test_counts_of_the_provider_are_exact() -> None:
    """Cost is reckoned from what the provider counted, cached input included, to the last digit."""

    async def run() -> None:
        world = World(Counts(Usage(input_tokens=1001, output_tokens=7, reasoning_tokens=3, cached_input_tokens=1)))
        reply = await world.ask("q")
        assert (reply.cost_usd, reply.cost_basis) == (Decimal("0.001015"), "exact")
        assert reply.usage.cached_input_tokens == 1
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
def test_missing_counts_are_estimated_and_say_so(usage: Usage) -> None:
    """Where a provider counts nothing, or half of it, we count the rest ourselves; usage and cost are marked estimated."""

    async def run() -> None:
        world = World(Counts(usage, "four words of text"))
        reply = await world.ask("what is it?")
        assert reply.cost_basis == "estimated"
        assert reply.usage.estimated
        assert reply.usage.input_tokens == (usage.input_tokens or 3)
        assert reply.usage.output_tokens == (usage.output_tokens or 5)
        assert reply.cost_usd > 0
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("wrong", [-1, -(10**9), 2**53, 7.5, "12"])
def test_counts_that_cannot_be_are_unknown(wrong: Any) -> None:
    """A provider of the user's own that reports nonsense: we count ourselves, and neither the row nor the money has it."""

    async def run() -> None:
        cached = Usage(input_tokens=1001, output_tokens=7, reasoning_tokens=wrong, cached_input_tokens=wrong)
        for usage, basis in ((Usage(input_tokens=wrong, output_tokens=wrong), "estimated"), (cached, "exact")):
            world = World(Counts(usage, "four words of text"))
            reply = await world.ask("what is it?")
            (attempt,) = world.ledger.attempts_by_id.values()
            assert attempt.usage == reply.usage
            assert (reply.usage.reasoning_tokens, reply.usage.cached_input_tokens) == (None, None)
            counted = (3, 5) if basis == "estimated" else (1001, 7)
            assert (reply.usage.input_tokens, reply.usage.output_tokens) == counted
            assert (attempt.cost_usd, attempt.cost_basis) == (Decimal(counted[0] + 2 * counted[1]).scaleb(-6), basis)
            await world.close()

    run_virtual(run())


@pytest.mark.parametrize("last", [Usage(), Usage(input_tokens=-1, output_tokens=-1)])
def test_counts_told_meanwhile_stand_where_the_last_ones_say_nothing(last: Usage) -> None:
    """What a provider told during the answer is used when it ends without counts, or with some that cannot be."""

    async def run() -> None:
        class Tells(Counts):
            async def send(self, wire: Any, progress: Any) -> Ending:
                progress.usage(Usage(input_tokens=1000, output_tokens=7, cached_input_tokens=-7))
                return await super().send(wire, progress)

        world = World(Tells(last, "four words of text"))
        reply = await world.ask("what is it?")
        assert (reply.usage, reply.cost_basis) == (Usage(input_tokens=1000, output_tokens=7), "exact")
        await world.close()

    run_virtual(run())


def test_counts_that_came_before_the_cut_are_used() -> None:
    """A stream that tells its input tokens and is then cut: input as counted, output estimated from what came."""

    async def run() -> None:
        class Cut(FakeProvider):
            async def send(self, wire: Any, progress: Any) -> Ending:
                progress.sent()
                progress.usage(Usage(input_tokens=1000))
                progress.delta(Delta(text="x" * 400))
                raise errors.StreamInterrupted("cut")

        world = World(Cut())
        await failure(world)
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.estimated) == (1000, 100, True)
        assert attempt.cost_usd == Decimal("0.0012")
        assert attempt.cost_basis == "estimated"
        await world.close()

    run_virtual(run())


def test_an_unpriced_model_is_unknown_never_zero() -> None:
    """No price: the cost is None, of the attempt and of the call, answered, failed or cancelled."""

    async def run() -> None:
        steps = ["fine", Script(then=errors.BadAnswer), Script(pieces=["a"], hang=True)]
        world = World(FakeProvider(*steps), rungs={"one/m": priced_like(rung(), price=None)})
        reply = await world.ask("a")
        assert (reply.cost_usd, reply.cost_basis) == (None, "unknown")
        failed, _ = await failure(world)
        assert isinstance(failed, errors.BadAnswer)
        call = world.start("c", watched=True)
        await asyncio.sleep(1)
        call.cancel()
        await outcome(call)
        assert [(a.cost_usd, a.cost_basis) for a in world.ledger.attempts_by_id.values()] == [(None, "unknown")] * 3
        await world.close()

    run_virtual(run())


def test_an_unpriced_model_that_was_not_reached_cost_nothing() -> None:
    """What was not sent, or was refused by status, costs exactly 0, priced or not."""

    async def run() -> None:
        refused = errors.ConnectionFailed("no", whole_endpoint=True)
        world = World(
            FakeProvider(refused, errors.ServerFailed("no", status=503)), rungs={"one/m": priced_like(rung(), price=None)}
        )
        for text in ("a", "b"):
            await outcome(world.ask(text, retries=0))
        assert [(a.cost_usd, a.cost_basis) for a in world.ledger.attempts_by_id.values()] == [(0, "exact")] * 2
        await world.close()

    run_virtual(run())


def test_embeddings_are_billed_by_input() -> None:
    """An embedding has no output tokens; its counts are complete without them, and its row says what it was for."""

    async def run() -> None:
        world = World()
        reply = await world.ask(content=Embed(texts=("two words", "and three more")))
        assert (reply.cost_usd, reply.cost_basis) == (Decimal("0.000005"), "exact")
        (attempt,) = world.ledger.attempts_by_id.values()
        assert (attempt.purpose, attempt.streamed) == ("embed", False)
        await world.close()

    run_virtual(run())


def test_content_parts_are_counted() -> None:
    """The estimate reads the text of content parts, and nothing else of them."""

    async def run() -> None:
        parts = [{"type": "text", "text": "x" * 400}, {"type": "image_url", "image_url": {"url": "data:" + "y" * 4000}}]
        world = World(Counts(Usage(), "ok"))
        reply = await world.ask(messages=({"role": "user", "content": parts}, {"role": "assistant", "content": None}))
        assert reply.usage.input_tokens == 100
        await world.close()

    run_virtual(run())
