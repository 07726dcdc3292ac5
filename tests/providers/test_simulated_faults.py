"""Every fault of the simulated models, streamed and whole: what is sent, what is received, what is raised, and how it goes on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Embed
from nbllm.providers.sim_options import FAULTS
from nbllm.providers.simulated import Simulated
from nbllm.testing import run_virtual
from tests.providers.simulation import DOC, Seen, chat, play, wire

PROMPT = f"Summarise {DOC} in three bullets."
REFUSALS: dict[str, tuple[type[errors.AttemptFailed], int | None]] = {
    "400": (errors.BadParameter, 400),
    "401": (errors.AuthenticationFailed, 401),
    "403": (errors.PermissionDenied, 403),
    "404": (errors.ModelNotFound, 404),
    "429": (errors.RateLimited, 429),
    "500": (errors.ServerFailed, 500),
    "503": (errors.ServerFailed, 503),
    "context": (errors.ContextTooLong, 400),
    "empty": (errors.BadAnswer, None),
    "filter": (errors.Refused, 400),
    "malformed": (errors.BadAnswer, None),
    "refused": (errors.ConnectionFailed, None),
    "reset": (errors.ConnectionFailed, None),
}
IN_MID_ANSWER = {"cut", "eof", "stall_mid"}
COMPLETE = {"slow", "drip", "length", "bad_json"}


def test_every_fault_is_tested_here() -> None:
    """A new fault needs a row in this file."""
    assert set(FAULTS) == {*REFUSALS, *IN_MID_ANSWER, *COMPLETE, "stall"}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", sorted(REFUSALS))
def test_refusals_are_typed(fault: str, streamed: bool) -> None:
    """The error is that of the real fault, with its status; only a refused connection counts as not sent; nothing is received."""
    seen, (kind, status) = Seen(), REFUSALS[fault]
    with pytest.raises(kind) as caught:
        run_virtual(Simulated().send(wire(chat(PROMPT), f"large?fault={fault}", streamed=streamed), seen))
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.rung == f"sim/large?fault={fault}"
    assert len(seen.sent_s) == (0 if fault == "refused" else 1)
    assert seen.deltas == []
    assert "(simulated)" in caught.value.summary


def test_a_refused_connection_blames_the_one_model_that_plays_dead() -> None:
    """All simulated models share one endpoint: the breaker of the healthy ones must not count it."""
    with pytest.raises(errors.ConnectionFailed) as caught:
        play(PROMPT, "large?fault=refused")
    assert not caught.value.whole_endpoint


@pytest.mark.parametrize("fault", ["429", "503"])
def test_retry_after(fault: str) -> None:
    """What the option asks for is what the error asks for; without it, nothing."""
    with pytest.raises(errors.AttemptFailed) as caught:
        play(PROMPT, f"large?fault={fault}&retry_after_s=2.5")
    assert caught.value.retry_after_s == 2.5
    with pytest.raises(errors.AttemptFailed) as caught:
        play(PROMPT, f"large?fault={fault}")
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("fault", ["cut", "eof"])
def test_broken_streams_keep_what_came(fault: str) -> None:
    """after_tokens pieces of the usual answer come, then the stream is interrupted."""
    seen, usual = Seen(), play(PROMPT)[1]
    with pytest.raises(errors.StreamInterrupted):
        run_virtual(Simulated().send(wire(chat(PROMPT), f"large?fault={fault}&after_tokens=5"), seen))
    assert [delta for _, delta in seen.deltas] == [delta for _, delta in usual.deltas[:5]]


@pytest.mark.parametrize("fault", ["cut", "eof", "stall_mid"])
def test_a_short_answer_is_broken_off_too(fault: str) -> None:
    """An answer with fewer tokens than after_tokens still does not end well."""
    with pytest.raises(errors.AttemptFailed):
        play("Reply with exactly: a", f"large?fault={fault}&after_tokens=50")


@pytest.mark.parametrize(("fault", "kind"), [("cut", errors.ConnectionFailed), ("eof", errors.BadAnswer)])
def test_broken_whole_answers_are_no_answers(fault: str, kind: type[Exception]) -> None:
    """A whole answer that breaks off delivers nothing, and is retried like a reset or an answer that is none."""
    seen = Seen()
    with pytest.raises(kind):
        run_virtual(Simulated().send(wire(chat(PROMPT), f"large?fault={fault}", streamed=False), seen))
    assert seen.deltas == []


@pytest.mark.parametrize(
    ("fault", "streamed", "pieces"), [("stall", True, 0), ("stall", False, 0), ("stall_mid", True, 8), ("stall_mid", False, 0)]
)
@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_silence_lasts_and_can_be_cancelled(fault: str, streamed: bool, pieces: int, speed: float) -> None:
    """A stall is not shortened by the speed, ends at once when cancelled, and by itself only at the deadline."""

    async def main() -> tuple[float, Seen]:
        seen = Seen()
        start_s = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(250):
                await Simulated(speed=speed).send(wire(chat(PROMPT), f"large?fault={fault}", streamed=streamed), seen)
        return asyncio.get_running_loop().time() - start_s, seen

    took_s, seen = run_virtual(main())
    assert took_s == pytest.approx(250)
    assert len(seen.deltas) == pieces
    with pytest.raises(errors.AttemptTimeout):
        run_virtual(Simulated().send(wire(chat(PROMPT), f"large?fault={fault}", streamed=streamed, deadline_s=20), Seen()))


def test_slow_and_drip() -> None:
    """Slow is eight times slower; a drip is one token a second, whatever the speed; both are the usual answer."""
    _, usual = play(PROMPT)
    _, slow = play(PROMPT, "large?fault=slow")
    ending, drip = play(PROMPT, "large?fault=drip", provider=Simulated(speed=0))
    assert slow.text == drip.text == usual.text
    assert slow.deltas[-1][0] - slow.sent_s[0] == pytest.approx(8 * (usual.deltas[-1][0] - usual.sent_s[0]))
    assert drip.deltas[-1][0] - drip.deltas[0][0] == pytest.approx(len(drip.deltas) - 1)
    assert ending.finish_reason == "stop"


def test_length_and_broken_json() -> None:
    """Cut by the provider with finish length; JSON that does not parse, with finish stop."""
    ending, seen = play(PROMPT, "large?fault=length&after_tokens=6")
    assert ending.finish_reason == "length"
    assert ending.usage.output_tokens == len(seen.deltas) == 6
    schema: dict[str, Any] = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    for content in (chat(PROMPT, json_schema=schema), chat(PROMPT)):
        ending, seen = play(content, "large?fault=bad_json")
        assert ending.finish_reason == "stop"
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(seen.text)


def test_fault_times_counts_tries_of_a_prompt() -> None:
    """The first two tries fail, the third is fine; another prompt and another instance start anew."""
    provider, model = Simulated(), "large?fault=500&fault_times=2"
    for _ in range(2):
        with pytest.raises(errors.ServerFailed):
            play(PROMPT, model, provider=provider)
    assert play(PROMPT, model, provider=provider)[1].text == play(PROMPT)[1].text
    with pytest.raises(errors.ServerFailed):
        play("Say hi", model, provider=provider)
    with pytest.raises(errors.ServerFailed):
        play(PROMPT, model)


def test_a_repair_is_a_further_try() -> None:
    """Broken JSON once: asked again with the error, the same conversation gets valid JSON."""
    schema = {"type": "object", "properties": {"year": {"type": "integer", "minimum": 1800}}, "required": ["year"]}
    provider, model = Simulated(), "large?fault=bad_json&fault_times=1"
    first = chat(PROMPT, json_schema=schema)
    broken = play(first, model, provider=provider)[1].text
    again = ({"role": "assistant", "content": broken}, {"role": "user", "content": "That is no JSON. Answer with valid JSON only."})
    repaired = play(
        chat(PROMPT, json_schema=schema).__class__(messages=first.messages + again, json_schema=schema), model, provider=provider
    )
    assert json.loads(repaired[1].text)["year"] == 1874


def test_fault_rate_is_a_seeded_share() -> None:
    """About the asked share of tries fails, and the same ones each time."""

    def failures() -> list[bool]:
        provider, failed = Simulated(speed=0), []
        for n in range(300):
            try:
                play(f"Reply with exactly: {n}", "small?fault=503&fault_rate=0.2&seed=1", provider=provider)
            except errors.ServerFailed:
                failed.append(True)
            else:
                failed.append(False)
        return failed

    first = failures()
    assert 40 < sum(first) < 80
    assert failures() == first


def test_a_prompt_beyond_the_window_is_refused() -> None:
    """As a real endpoint does, and quickly for 5 MB; the larger model takes what the small one refuses."""
    long = "word " * 20_000
    with pytest.raises(errors.ContextTooLong, match="16,384"):
        play(long, "small")
    assert play(long, "large")[1].text
    with pytest.raises(errors.ContextTooLong):
        play("word " * 1_000_000, "large")


@pytest.mark.parametrize(
    ("fault", "kind"), [("429", errors.RateLimited), ("refused", errors.ConnectionFailed), ("stall", errors.AttemptTimeout)]
)
def test_embeddings_fail_too(fault: str, kind: type[Exception]) -> None:
    """Faults are played for embeddings as well."""
    with pytest.raises(kind):
        play(Embed(texts=("a",)), f"small?fault={fault}")
