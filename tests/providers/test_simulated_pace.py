"""The simulated models: the same request is answered the same, at the pace of a model."""

from __future__ import annotations

import asyncio

import pytest

from nbllm import errors
from nbllm.providers.simulated import Simulated, speed_from
from nbllm.testing import offline, run_virtual
from tests.providers.simulation import DOC, Seen, chat, play, wire

# ---------------------------------------------------------------------------------------------------- same again


def test_the_same_request_is_answered_the_same_at_the_same_pace() -> None:
    """Text, times, usage and ids repeat exactly, in another instance too."""
    first, second = (play(f"Summarise {DOC} in three bullets.") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("change", ["seed", "sample", "top_p"])
def test_seed_and_parameters_make_another_answer(change: str) -> None:
    """Each of them is honoured: over a few values at least one text differs, and the task is still done."""
    question = f"Summarise {DOC} in three bullets."
    usual = play(question, "small")[1].text
    changed = [play(chat(question, **{change: n}), "small")[1].text for n in range(1, 7)]
    assert any(text != usual for text in changed)
    assert all(len(text.split("\n")) == 3 for text in changed)


def test_temperature_zero_takes_the_best_sentences() -> None:
    """Without noise the seed does not matter, and both models say the same."""
    question = f"Summarise {DOC} in three bullets."
    texts = {play(chat(question, temperature=0, seed=n), model)[1].text for n in range(4) for model in ("small", "large")}
    assert len(texts) == 1


def test_whole_and_streamed_answers_are_the_same_text() -> None:
    """Streaming changes when text comes, not what it says; a whole answer is one piece, as late as the stream's end."""
    streamed, whole = play(f"Summarise {DOC}"), play(f"Summarise {DOC}", streamed=False)
    assert streamed[1].text == whole[1].text
    assert len(whole[1].deltas) == 1
    assert len(streamed[1].deltas) > 20
    assert streamed[0] == whole[0]
    assert whole[1].deltas[0][0] == pytest.approx(streamed[1].deltas[-1][0], rel=0.05)


def test_a_limit_gives_the_beginning_of_the_same_answer() -> None:
    """max_tokens cuts and says so; the usage counts what came."""
    full = play(f"Summarise {DOC}")[1].text
    ending, seen = play(chat(f"Summarise {DOC}", max_tokens=12))
    assert full.startswith(seen.text)
    assert ending.finish_reason == "length"
    assert ending.usage.output_tokens == 12


def test_stop_is_honoured() -> None:
    """The text ends before the first stop sequence, with finish stop."""
    ending, seen = play(chat(f"Summarise {DOC} in three bullets.", stop=("\n-",)))
    assert seen.text.count("- ") == 1
    assert ending.finish_reason == "stop"


# ---------------------------------------------------------------------------------------------------- pace


def test_the_pace_is_that_of_a_model() -> None:
    """First tokens come around the stated median with a tail, tokens at about the stated rate."""
    firsts, rates = [], []
    for sample in range(60):
        _, seen = play(chat(f"Summarise {DOC}", sample=sample))
        firsts.append(seen.deltas[0][0] - seen.sent_s[0])
        rates.append((len(seen.deltas) - 1) / (seen.deltas[-1][0] - seen.deltas[0][0]))
    firsts.sort()
    assert 0.25 < firsts[30] < 0.5
    assert firsts[-1] > 2 * firsts[30] or firsts[-1] > 0.7
    assert 65 < sorted(rates)[30] < 105


def test_pace_can_be_set() -> None:
    """ttft_s, tok_s and jitter are exact when asked for."""
    _, seen = play(f"Summarise {DOC}", "large?ttft_s=0.1&tok_s=200&jitter=0")
    assert seen.deltas[0][0] - seen.sent_s[0] == pytest.approx(0.1)
    assert (seen.deltas[-1][0] - seen.deltas[0][0]) / (len(seen.deltas) - 1) == pytest.approx(1 / 200)


def test_speed_scales_and_zero_does_not_wait() -> None:
    """NBLLM_SIM_SPEED=10 is ten times as fast, 0 takes no time; offline() takes none either."""
    _, usual = play(f"Summarise {DOC}")
    _, fast = play(f"Summarise {DOC}", provider=Simulated(speed=10))
    assert fast.deltas[-1][0] - fast.sent_s[0] == pytest.approx((usual.deltas[-1][0] - usual.sent_s[0]) / 10)
    _, at_once = play(f"Summarise {DOC}", provider=Simulated(speed=0))
    assert at_once.deltas[-1][0] == at_once.sent_s[0]
    with offline():
        _, quiet = play(f"Summarise {DOC}")
    assert quiet.deltas[-1][0] == quiet.sent_s[0]
    assert quiet.text == at_once.text == usual.text


def test_the_speed_of_the_environment_is_checked() -> None:
    """A speed that is no number is a clear error; unset is 1."""
    assert speed_from({}) == 1
    assert speed_from({"NBLLM_SIM_SPEED": "0"}) == 0
    for bad in ("fast", "-1", "nan", "inf"):
        with pytest.raises(errors.ConfigurationError, match="NBLLM_SIM_SPEED must be a number"):
            speed_from({"NBLLM_SIM_SPEED": bad})


def test_no_wait_still_lets_others_run() -> None:
    """An answer without waiting yields to the loop, so that it can be cancelled and others are not starved."""

    async def main() -> int:
        ticks = 0
        task = asyncio.ensure_future(Simulated(speed=0).send(wire(chat(f"Summarise {DOC}")), Seen()))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0)
        return ticks

    assert run_virtual(main()) > 3
