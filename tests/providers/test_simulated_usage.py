"""The simulated models: usage, logprobs and reasoning."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from nbllm.core.pricing import cost
from nbllm.providers.sim_options import MODELS
from nbllm.providers.sim_pace import tokens
from tests.providers.simulation import DOC, chat, play


def test_usage_prices_the_call() -> None:
    """Counts are those of the deltas, and the price makes a plausible cost."""
    ending, seen = play(f"Summarise {DOC}")
    assert ending.usage.output_tokens == len(seen.deltas)
    assert 150 < (ending.usage.input_tokens or 0) < 300
    assert not ending.usage.estimated
    spent = cost(ending.usage, MODELS["large"].price)
    assert spent is not None
    assert Decimal("0.0005") < spent < Decimal("0.005")


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("top", [1, 5, 20])
def test_logprobs_are_consistent(top: int, streamed: bool) -> None:
    """One entry a token, the token itself among its alternatives, probabilities at most 1 in all, likeliest first."""
    _, seen = play(chat(f"Summarise {DOC}", logprobs=top), streamed=streamed)
    entries = [entry for _, delta in seen.deltas for entry in delta.logprobs]
    assert "".join(entry["token"] for entry in entries) == seen.text
    for entry in entries:
        tops = entry["top_logprobs"]
        assert len(tops) == top
        assert len({alternative["token"] for alternative in tops}) == top
        assert {"token": entry["token"], "logprob": entry["logprob"], "bytes": list(entry["token"].encode())} in tops
        assert sum(math.exp(alternative["logprob"]) for alternative in tops) <= 1 + 1e-9
        assert [a["logprob"] for a in tops] == sorted((a["logprob"] for a in tops), reverse=True)


def test_logprobs_only_when_asked() -> None:
    """None and False bring none; True brings the tokens' own without alternatives."""
    for asked in (None, False):
        assert not any(delta.logprobs for _, delta in play(chat("Say hi", logprobs=asked))[1].deltas)
    entries = [entry for _, delta in play(chat("Say hi", logprobs=True))[1].deltas for entry in delta.logprobs]
    assert entries
    assert all(entry["top_logprobs"] == [] for entry in entries)


def test_reasoning_when_asked() -> None:
    """Reasoning comes first, apart from the text, and is counted as output; a small limit may leave no text at all."""
    ending, seen = play(chat(f"Summarise {DOC}", extra={"reasoning_effort": "low"}))
    assert seen.reasoning
    assert seen.text
    assert ending.usage.reasoning_tokens == len(tokens(seen.reasoning))
    short, cut = play(chat(f"Summarise {DOC}", extra={"reasoning_effort": "low"}, max_tokens=5))
    assert cut.reasoning
    assert not cut.text
    assert short.finish_reason == "length"
