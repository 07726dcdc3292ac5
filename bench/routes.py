"""What a routing decision costs without its model call: every strategy, on a road of fakes."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench.measure import Row
from nbllm import Client
from nbllm.asking import chat_request
from nbllm.calibration import fit_labels
from nbllm.core.reply import Reply
from nbllm.pipeline.stage import call_of
from nbllm.testing import FakeProvider

_MODELS = ["sim/small", "sim/large", "sim/small?seed=1", "sim/small?seed=2", "sim/large?seed=3"]
_DIMENSIONS = 384
_ROUNDS = 400


def routes(folder: Path) -> dict[str, Any]:
    """Return a route of each strategy over five models."""
    draw = np.random.default_rng(0)
    plan = fit_labels(draw.normal(size=(200, _DIMENSIONS)), ["easy", "hard"] * 100)
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    labels = {"easy": "sim/small", "hard": "sim/large"}
    rules = [{"feature": f"f{n}", "use": "sim/small"} for n in range(5)]
    rules += [{"language": "de", "use": "sim/large"}, {"matches": r"\border\b", "use": "sim/large"}]
    return {
        "task": {"strategy": "task", "rules": rules, "otherwise": _MODELS},
        "classifier": {"strategy": "classifier", "model": "sim/small", "labels": labels, "otherwise": "sim/small"},
        "learned": {
            "strategy": "learned", "plan": str(folder / "plan.json"), "embedder": "sim/small", "labels": labels,
            "otherwise": "sim/small",
        },
        "cascade": {"strategy": "cascade", "models": _MODELS, "accept": "logprob", "min_logprob": -0.5},
        "weighted": {"strategy": "weighted", "weights": dict.fromkeys(_MODELS, 1)},
        "canary": {"strategy": "canary", "stable": "sim/small", "canary": "sim/large", "share": 0.1},
        "cheapest": {"strategy": "cheapest", "models": _MODELS},
        "fastest": {"strategy": "fastest", "models": _MODELS},
        "spill_over": {"strategy": "spill_over", "models": _MODELS},
    }  # fmt: skip


class Ready:
    """Helpers whose models have answered already: what is left is the decision."""

    def __init__(self) -> None:
        self._label = Reply(text="easy", model="m", rung="r", source="model", finish_reason="stop", call_id="c")
        self._vector = np.random.default_rng(1).normal(size=(1, _DIMENSIONS)).astype(np.float32)

    async def ask(self, *_: Any, **__: Any) -> Reply:
        return self._label

    async def embed(self, *_: Any, **__: Any) -> Any:
        return self._vector


def decisions() -> list[Row]:
    """Return the row of the decision: the slowest strategy's median, the others beside it."""
    with tempfile.TemporaryDirectory() as folder:
        given = routes(Path(folder))
        fake = FakeProvider(default="easy", dimensions=_DIMENSIONS)
        with Client(home=Path(folder) / "home", providers={"simulated": fake}, routes=given) as client:
            for n in range(250):
                client.ask(f"warm {n}", model=_MODELS[n % 5])
            took = {name: client._run(lambda house, name=name: _timed(house.road, client, name)) for name in given}  # noqa: SLF001
    slowest = max(took, key=lambda name: took[name])
    detail = "; ".join(f"{name} {took_ms:.3f} ms" for name, took_ms in took.items())
    measured = f"at most {took[slowest]:.3f} ms ({slowest})"
    return [Row("routing decision without its model call, 5 models", "0.1 ms", measured, detail, took[slowest] <= 0.1)]


async def _timed(road: Any, client: Client, name: str) -> float:
    text = "What is the status of my order, and when will it be here? " * 5
    road.chooser._helpers = Ready()  # noqa: SLF001 - the decision alone is what is measured
    times = []
    for _ in range(_ROUNDS):
        request = chat_request(text, {"model": name, "user": "ann"}, client.settings, watched=False, on_interrupt="restart")
        routed = road._parts.router.now(road.open(request))  # noqa: SLF001 - same
        strategy = call_of(routed).strategy
        began_s = perf_counter()
        await road.chooser(routed, strategy)
        times.append(perf_counter() - began_s)
        await asyncio.sleep(0)
    return median(times) * 1000


if __name__ == "__main__":
    print(decisions())
