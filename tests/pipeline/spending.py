"""What the tests of budgets reckon with: the worst case of a call, and a provider that says what it used."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from nbllm.core.messages import Ending, Usage
from nbllm.core.pricing import Price, worst_case
from nbllm.testing import FakeProvider
from tests.pipeline.making import PRICE
from tests.pipeline.world import World, size_bytes

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
