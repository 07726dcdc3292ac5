"""Any route under any faults: it answers or fails in a known way, in time, and leaves nothing open."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm import errors
from nbllm.core.messages import NullSink
from nbllm.core.reply import Reply
from nbllm.testing import Script, run_virtual
from tests.pipeline.routing import HELP, LARGE, SMALL, Seeing, sure, world
from tests.pipeline.world import outcome

MODELS = [SMALL, HELP, LARGE]
LABELS = {"yes": SMALL, "no": LARGE}
ROUTES: list[dict[str, Any]] = [
    {"strategy": "task", "rules": [{"contains": ["a"], "use": SMALL}], "otherwise": LARGE},
    {"strategy": "classifier", "model": HELP, "labels": LABELS, "otherwise": [LARGE, SMALL]},
    {"strategy": "cascade", "models": MODELS, "accept": "logprob", "min_logprob": -1},
    {"strategy": "cascade", "models": MODELS, "accept": "logprob", "min_logprob": -1, "if_none": "raise"},
    {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "verifier", "verifier": HELP},
    {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "verifier", "verifier": HELP, "if_none": "raise"},
    {"strategy": "cascade", "models": MODELS, "accept": "valid", "repairs": 1},
    {"strategy": "weighted", "weights": {SMALL: 1, LARGE: 2}},
    {"strategy": "cheapest", "models": MODELS},
    {"strategy": "fastest", "models": MODELS, "min_calls": 1},
    {"strategy": "spill_over", "models": MODELS},
]
STEPS: list[Any] = [
    "yes",
    "no",
    "neither",
    "7",
    sure("yes", -0.1),
    sure("no", -3),
    sure("no", -0.1, first_after_s=2, end_after_s=1),
    Script(hang=True),
    Script(pieces=["half"], hang=True),
    Script(pieces=["half"], then=errors.StreamInterrupted),
    errors.ServerFailed,
    errors.RateLimited,
    errors.AuthenticationFailed,
    errors.Refused,
    errors.BadParameter,
    errors.ConnectionFailed,
]
steps = st.sampled_from(STEPS)


@settings(deadline=None, max_examples=60)
@given(
    route=st.sampled_from(ROUTES),
    small=steps,
    large=steps,
    help_=steps,
    options=st.fixed_dictionaries(
        {
            "watched": st.booleans(),
            "on_interrupt": st.sampled_from(["restart", "raise"]),
            "cache": st.sampled_from(["use", "refresh", "off"]),
            "deadline_s": st.sampled_from([1.0, 10.0]),
            "budget_usd": st.sampled_from([None, Decimal("0.0005"), Decimal(1)]),
            "static": st.sampled_from([None, "later"]),
            "max_tokens": st.sampled_from([None, 300]),
        }
    ),
    cancelled_s=st.sampled_from([None, None, 0.0, 0.5]),
    callers=st.integers(1, 3),
)
def test_a_route_answers_or_fails_in_time(
    route: Any, small: Any, large: Any, help_: Any, options: dict[str, Any], cancelled_s: float | None, callers: int
) -> None:
    """Whatever happens: a reply or one of our errors within the deadline; rows closed, nothing reserved, the cache whole;
    what a watcher sees is what the reply says; not accepted is only what a cascade says so of.
    """

    async def run() -> None:
        there = world({"r": route}, small=small, large=large, help=help_)
        began_s = there.clock.now_s()
        watchers = [Seeing(there) for _ in range(callers)]
        tasks = [there.start("a question", "r", sink=one if options["watched"] else NullSink(), **options) for one in watchers]
        if cancelled_s is not None:
            await asyncio.sleep(cancelled_s)
            tasks[0].cancel()
        results = [await outcome(task) for task in tasks]
        assert there.clock.now_s() - began_s <= options["deadline_s"] + 0.1
        for number, (result, watcher) in enumerate(zip(results, watchers, strict=True)):
            if isinstance(result, Reply):
                assert result.accepted or route["strategy"] == "cascade"
                assert result.why.route == "r" or result.source == "static"
                if options["watched"] and number != 0:
                    assert watcher.text == result.text
            elif not (number == 0 and isinstance(result, asyncio.CancelledError)):
                assert isinstance(result, errors.NbllmError), result
        await there.close()

    run_virtual(run())
