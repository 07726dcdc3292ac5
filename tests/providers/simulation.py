"""A text to ask about, and one request to a simulated model in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from nbllm.core.messages import Chat, Content, Delta, Ending, Rung, Usage
from nbllm.core.ports import RateLimits, Wire
from nbllm.providers.sim_options import MODELS
from nbllm.providers.simulated import Simulated
from nbllm.settings import Endpoint
from nbllm.testing import FakeClock, run_virtual

DOC = """The cable ship Faraday left the yard at Greenock in the spring of 1874. She was built for one job: laying telegraph cable
across the Atlantic. Her three tanks could hold 1,700 miles of cable, kept under water so that the insulation would not dry out.
The crew numbered 150, most of them from Aberdeen.

Laying cable was slow work because the ship had to steam at a steady six knots. When the cable broke, which happened often in
storms, the crew dragged a grapnel along the sea floor until it caught. Captain Trott found one broken end in 2,000 fathoms of
water; it took him eleven days. Splicing the ends needed calm weather and steady hands. The old ship was sold in 1924."""


@dataclass
class Seen:
    """A Progress that keeps what it is told, with the loop's time."""

    sent_s: list[float] = field(default_factory=list)
    deltas: list[tuple[float, Delta]] = field(default_factory=list)

    def sent(self) -> None:
        self.sent_s.append(asyncio.get_running_loop().time())

    def limits(self, limits: RateLimits) -> None:
        raise AssertionError("a simulated model has no limits")

    def delta(self, delta: Delta) -> None:
        self.deltas.append((asyncio.get_running_loop().time(), delta))

    def usage(self, usage: Usage) -> None:
        raise AssertionError("usage comes with the ending")

    @property
    def text(self) -> str:
        return "".join(delta.text for _, delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(delta.reasoning for _, delta in self.deltas)

    @property
    def tool(self) -> tuple[str, str]:
        calls = [delta.tool_call for _, delta in self.deltas if delta.tool_call]
        return "".join(call.name for call in calls), "".join(call.arguments for call in calls)


def rung(model: str = "large") -> Rung:
    return Rung(
        id=f"sim/{model}",
        model=model,
        endpoint_name="sim",
        endpoint=Endpoint(),
        provider="simulated",
        identity="simulated-1",
        price=MODELS[model.partition("?")[0]].price if model.partition("?")[0] in MODELS else None,
    )


def chat(prompt: str, **rest: Any) -> Chat:
    return Chat(messages=({"role": "user", "content": prompt},), **rest)


def wire(content: Content, model: str = "large", *, streamed: bool = True, deadline_s: float = 300.0) -> Wire:
    return Wire(rung=rung(model), content=content, streamed=streamed, deadline_s=deadline_s)


def play(
    content: Content | str, model: str = "large", *, streamed: bool = True, provider: Simulated | None = None
) -> tuple[Ending, Seen]:
    """Run one request in virtual time and return its ending and what was seen on the way."""
    seen = Seen()
    request = wire(chat(content) if isinstance(content, str) else content, model, streamed=streamed)
    return run_virtual((provider or Simulated()).send(request, seen), clock=FakeClock()), seen
