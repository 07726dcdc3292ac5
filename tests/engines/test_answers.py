"""Answers of a real vLLM over the whole road: plain, streamed, with logprobs, structured, cached, shared."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import pytest

from nbllm import Client
from tests.engines.server import EngineServer

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]

MODEL = "lab/tiny"
FIVE_TOKENS = {"max_tokens": 5, "extra": {"ignore_eos": True}}


@dataclass
class Mood:
    """What the model is asked for: few enough possibilities that a tiny model ends."""

    mood: Literal["good", "bad"]
    sure: bool


def test_answer_has_text_exact_counts_and_exact_cost(client: Client, engine: EngineServer) -> None:
    """One call is one request, and its tokens and dollars are those that the engine counted."""
    before = engine.finished()
    reply = client.ask("What is an entangled bank?", model=MODEL, temperature=0)
    assert reply.text
    assert (reply.source, reply.finish_reason, reply.rung) == ("model", "stop", MODEL)
    usage = reply.usage
    assert usage.input_tokens
    assert usage.output_tokens
    assert not usage.estimated
    assert reply.cost_basis == "exact"
    assert reply.cost_usd == (Decimal(usage.input_tokens) + 2 * Decimal(usage.output_tokens)) / 1_000_000
    assert engine.finished() - before == 1
    assert [attempt.sent for attempt in reply.attempts] == [True]


def test_stream_comes_in_pieces_and_equals_the_answer(client: Client) -> None:
    """A streamed answer is the whole answer's text in pieces, with a first-token time and the engine's own counts."""
    whole = client.ask("What was dedicated at Gettysburg?", model=MODEL, temperature=0, cache="off")
    stream = client.stream("What was dedicated at Gettysburg?", model=MODEL, temperature=0, cache="off")
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text == stream.reply.text
    assert stream.reply.ttft_s is not None
    assert 0 < stream.reply.ttft_s <= stream.reply.latency_s
    assert stream.reply.usage.output_tokens == whole.usage.output_tokens
    assert stream.reply.cost_basis == "exact"


def test_logprobs_pass_through_and_are_kept_in_the_cache(client: Client) -> None:
    """Log probabilities come one a token with the alternatives asked for, and a hit has the same ones."""
    options = {**FIVE_TOKENS, "stop": ["zzz"]}
    first = client.ask("Say something", model=MODEL, temperature=0, logprobs=2, **options)
    assert len(first.logprobs) == 5
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2 for entry in first.logprobs)

    asked = {"model": MODEL, "temperature": 0, "logprobs": 1}
    fresh = client.ask("Say something short", **asked)
    again = client.ask("Say something short", **asked)
    assert (fresh.source, again.source) == ("model", "cache")
    assert fresh.logprobs
    assert again.logprobs == fresh.logprobs


def test_second_call_comes_from_the_cache_and_costs_nothing(client: Client, engine: EngineServer) -> None:
    """The same question again sends nothing, costs 0 and says what it saved."""
    first = client.ask("What is grandeur?", model=MODEL, temperature=0)
    before = engine.finished()
    second = client.ask("What is grandeur?", model=MODEL, temperature=0)
    assert (second.source, second.text, second.cost_usd) == ("cache", first.text, 0)
    assert second.saved_usd == first.cost_usd
    assert engine.finished() == before


def test_answer_cut_by_max_tokens_is_marked_and_not_cached(client: Client, engine: EngineServer) -> None:
    """A truncated answer says so, and the same question is asked again."""
    before = engine.finished()
    replies = [client.ask("Tell me all", model=MODEL, temperature=0, **FIVE_TOKENS) for _ in range(2)]
    assert all(reply.truncated and reply.source == "model" for reply in replies)
    assert engine.finished() - before == 2


def test_identical_calls_share_one_request(client: Client, engine: EngineServer) -> None:
    """Thirty identical calls in flight are one request, one paid answer and thirty replies."""

    async def all_at_once() -> list[object]:
        asked = [client.aask("What do we hallow?", model=MODEL, temperature=0, deadline_s=60) for _ in range(30)]
        return list(await asyncio.gather(*asked))

    before = engine.finished()
    replies = asyncio.run(all_at_once())
    assert engine.finished() - before == 1
    assert len({reply.text for reply in replies}) == 1
    assert sum(1 for reply in replies if reply.cost_usd) == 1


def test_different_calls_run_side_by_side(client: Client, engine: EngineServer) -> None:
    """Thirty-two different questions at once are all answered, one request each."""

    async def all_at_once() -> list[object]:
        asked = [client.aask(f"Question {n}?", model=MODEL, temperature=0, deadline_s=60) for n in range(32)]
        return list(await asyncio.gather(*asked))

    before = engine.finished()
    replies = asyncio.run(all_at_once())
    assert all(reply.text for reply in replies)
    assert engine.finished() - before == 32


def test_schema_gives_checked_data(client: Client) -> None:
    """With a schema the engine's own JSON mode is used, and .data is an object of the user's class."""
    reply = client.ask("How do you feel?", model=MODEL, schema=Mood, max_tokens=60, temperature=0, deadline_s=120)
    assert isinstance(reply.data, Mood)
    assert reply.data.mood in ("good", "bad")


def test_failed_check_is_repaired_by_asking_again(client: Client, engine: EngineServer) -> None:
    """A check that refuses the first answer costs one more request, and the reply says so."""
    seen: list[str] = []

    def second_time(text: str) -> bool:
        seen.append(text)
        return len(seen) > 1

    before = engine.finished()
    reply = client.ask("What is fitting and proper?", model=MODEL, check=second_time, temperature=0)
    assert reply.repairs == 1
    assert reply.repair_cost_usd
    assert engine.finished() - before == 2
