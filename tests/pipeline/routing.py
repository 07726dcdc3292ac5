"""Worlds with routes: providers of one answer each, and what a call of a route comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.core.messages import Delta, Request, Rung, Sink
from nbllm.core.ports import Wire
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script
from tests.pipeline.making import priced_like
from tests.pipeline.world import World

SMALL, LARGE, HELP = "small/m", "large/m", "help/m"


def sure(text: str, logprob: float, **script: Any) -> Script:
    """An answer whose tokens all have that log probability, None for without any."""
    return Script(pieces=[Delta(text=text, logprobs=({"token": text, "logprob": logprob},))], **script)


def world(routes: Mapping[str, Any], **defaults: Any) -> World:
    """A world of three endpoints that answer as said: small=, large=, help= (a step each), and what else World takes."""
    answers = {"small": "from small", "large": "from large", "help": "from help"}
    steps = {name: defaults.pop(name, answer) for name, answer in answers.items()}
    providers = {name: FakeProvider(default=step) for name, step in steps.items()}
    settings = {"routes": routes, **defaults.pop("settings", {})}
    return World(providers=providers, settings=settings, **defaults)


def calls(there: World) -> dict[str, int]:
    """How many requests each endpoint got."""
    return {name: provider.calls for name, provider in there.providers.items() if provider.calls}


def swap_prices(there: World) -> None:
    """Give each endpoint the price that the other had: small becomes the dear one."""
    at: dict[str, Rung] = {name: there.rung(name) for name in (SMALL, LARGE)}
    there.rungs = {SMALL: priced_like(at[SMALL], price=at[LARGE].price), LARGE: priced_like(at[LARGE], price=at[SMALL].price)}


class Seeing:
    """A sink that keeps when each piece of text was seen, and restarts."""

    def __init__(self, there: World) -> None:
        self._now_s, self._began_s = there.clock.now_s, there.clock.now_s()
        self.texts: list[tuple[float, str]] = []
        self.restarts: list[str] = []
        self.started_rungs: list[str] = []

    def started(self, attempt: Any) -> None:
        self.started_rungs.append(attempt.rung)

    def delta(self, delta: Delta) -> None:
        if delta.text or delta.reasoning:
            self.texts.append((round(self._now_s() - self._began_s, 3), delta.text or f"({delta.reasoning})"))

    def restarted(self, reason: str) -> None:
        self.restarts.append(reason)
        self.texts.clear()

    @property
    def text(self) -> str:
        """What stands there now."""
        return "".join(text for _, text in self.texts)


def asked(wire: Wire) -> str:
    """The text of the last message that an endpoint got."""
    return str(wire.content.messages[-1]["content"])  # type: ignore[union-attr]


__all__ = ["HELP", "LARGE", "SMALL", "Reply", "Request", "Seeing", "Sink", "asked", "calls", "sure", "swap_prices", "world"]
