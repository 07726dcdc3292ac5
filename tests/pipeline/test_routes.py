"""Routes with a strategy, on the whole road: whom they choose, why, and that asking again costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbllm import errors
from nbllm.testing import Script, run_virtual
from tests.pipeline.routing import (
    CANARY,
    CHEAPEST,
    CLASSIFIER,
    FASTEST,
    LARGE,
    LOGPROB,
    NESTED,
    SMALL,
    SPILL,
    TASK,
    VERIFIER,
    WEIGHTED,
    calls,
    learned,
    sure,
    swap_prices,
    world,
)

EVERY = {
    "fixed": [SMALL, LARGE],
    "task": TASK,
    "classifier": CLASSIFIER,
    "learned": None,
    "weighted": WEIGHTED,
    "canary": CANARY,
    "cheapest": CHEAPEST,
    "fastest": FASTEST,
    "spill_over": SPILL,
    "logprob": LOGPROB,
    "verifier": VERIFIER,
    "nested": NESTED,
}


@pytest.mark.parametrize("door", ["fast", "road"])
@pytest.mark.parametrize("name", EVERY)
def test_asking_again_sends_nothing(name: str, door: str, tmp_path: Path) -> None:
    """Every strategy, asked twice with prices, latencies, weights and limits turned round in between: the second run is free.

    By the fast door and by the road; for answers of either model, of helpers that said one thing or the other.
    """

    async def run(said: str, text: str) -> None:
        route = EVERY[name] or learned(tmp_path)
        slow = Script(pieces=["from small"], first_after_s=5)
        there = world({"r": route, "inner": LOGPROB}, small=sure("from small", -0.1 if said in ("easy", "yes") else -2), help=said)
        ask = there.door if door == "fast" else there.ask
        first = await ask(text, "r", feature="f", user="ann")
        assert first.source == "model"
        sent = calls(there)
        swap_prices(there)
        there.providers["small"]._default = slow
        there.configure(routes={"r": _turned(route), "inner": LOGPROB})
        for endpoint in ("small", "large"):
            there.endpoints = {**there.endpoints, endpoint: {"rpm": 1}}
        again = await ask(text, "r", feature="f", user="ann")
        assert calls(there) == sent
        assert (again.source, again.cost_usd, again.text) == ("cache", 0, first.text)
        assert again.accepted
        assert again.why.route == "r"
        await there.close()

    for said in ("yes", "no") if name == "verifier" else ("easy", "hard"):
        for text in ("hello", "t1"):
            run_virtual(run(said, text))


def _turned(route: Any) -> Any:
    """The same route with its numbers turned round."""
    if isinstance(route, list):
        return route
    turned = dict(route)
    turned |= {"weights": {SMALL: 1000, LARGE: 1}} if "weights" in route else {}
    turned |= {"share": 1 - route["share"]} if route.get("share") == 0.9 else {}
    return turned


def test_each_decision_has_its_reason() -> None:
    """The reply and the ledger say the route's name and why it chose as it did."""

    async def run() -> None:
        there = world({"task": TASK, "canary": {**CANARY, "share": 1}, "nested": NESTED, "inner": LOGPROB}, small=sure("a", -0.1))
        for n, (route, reason) in enumerate(
            {
                "task": "route task: rule 1 (feature f)",
                "canary": "route canary: canary for 1 of users",
                "nested": "route nested: rule 1 (contains 'hello') > inner: cascade: small/m accepted: "
                "mean log probability -0.100 >= -0.500",
            }.items()
        ):
            reply = await there.ask(f"hello {n}", route, feature="f", user="ann")
            assert (reply.why.route, reply.why.reason) == (route, reason)
            row = there.ledger.calls_by_id[reply.call_id]
            assert (row.why.route, row.reason, row.model) == (route, reason, route)
        assert reply.why.threshold == -0.5
        await there.close()

    run_virtual(run())


def test_rules_choose_and_fall_back() -> None:
    """A rule's models come first, `otherwise` behind them; without a rule that holds `otherwise` answers."""

    async def run() -> None:
        there = world({"r": TASK}, large=errors.ServerFailed)
        reply = await there.ask("a", "r", feature="f")
        assert (reply.rung, calls(there)) == (SMALL, {"large": 3, "small": 1})
        assert (await there.ask("b", "r")).rung == SMALL
        await there.close()

    run_virtual(run())


def test_a_rule_keeps_to_its_models() -> None:
    """An answer of a model that a rule avoids does not stand in for the rule's own."""

    async def run() -> None:
        rules = [{"feature": "careful", "use": LARGE}]
        there = world({"r": {**TASK, "rules": rules, "otherwise": "large/other"}})
        await there.ask("q", SMALL)
        await there.ask("q", "small/m")
        reply = await there.ask("q", "r", feature="careful")
        assert (reply.rung, reply.source) == (LARGE, "model")
        await there.close()

    run_virtual(run())
