"""Worlds with routes: providers of one answer each, and what a call of a route comes to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nbllm.calibration import fit_labels
from nbllm.core.messages import Delta, Embed, Rung
from nbllm.core.ports import Wire
from nbllm.testing import FakeProvider, Script
from tests.pipeline.making import priced_like
from tests.pipeline.world import World, outcome

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


LABELS = {"easy": SMALL, "hard": LARGE}
TASK = {"strategy": "task", "rules": [{"feature": "f", "use": LARGE}], "otherwise": SMALL}
CLASSIFIER = {"strategy": "classifier", "model": HELP, "labels": LABELS, "otherwise": SMALL}
WEIGHTED = {"strategy": "weighted", "weights": {SMALL: 1, LARGE: 1}}
CANARY = {"strategy": "canary", "stable": SMALL, "canary": LARGE, "share": 0.5}
CHEAPEST = {"strategy": "cheapest", "models": [SMALL, LARGE]}
FASTEST = {"strategy": "fastest", "models": [SMALL, LARGE], "min_calls": 1}
SPILL = {"strategy": "spill_over", "models": [SMALL, LARGE]}
LOGPROB = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "logprob", "min_logprob": -0.5}
VERIFIER = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "verifier", "verifier": HELP}
NESTED = {"strategy": "task", "rules": [{"contains": ["hello"], "use": "inner"}], "otherwise": LARGE}


def learned(folder: Path) -> dict[str, Any]:
    """A route on a plan that knows two kinds of vectors, as FakeProvider makes them of texts."""
    fake, texts = FakeProvider(), ["hello", *(f"t{n}" for n in range(19))]
    vectors = np.array(fake._embedded(Embed(texts=tuple(texts))).vectors)
    plan = fit_labels(vectors, ["hard" if n % 2 == 0 else "easy" for n in range(20)], method="nearest")
    plan = type(plan).from_json(plan.to_json().replace(f'"setting": {plan.setting}', '"setting": 1.0'))
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    path = str(folder / "plan.json")
    return {"strategy": "learned", "plan": path, "embedder": "help/e", "labels": LABELS, "otherwise": SMALL}


VALID = {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "valid"}
RAISE = {"if_none": "raise"}
DOUBTFUL = sure("doubtful", -2)


async def asked_once(route: dict[str, Any], *, ask: dict[str, Any] | None = None, **there: Any) -> tuple[World, Any]:
    """One call of a cascade, and the world at rest."""
    made = world({"r": route}, **there)
    reply = await outcome(made.ask("q", "r", **(ask or {})))
    await made.close()
    return made, reply
