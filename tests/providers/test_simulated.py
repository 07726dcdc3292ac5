"""The simulated models: deterministic, paced, honest answers."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import errors
from nbllm.core.messages import Chat, Content, Delta, Embed, Ending, Rung, Usage
from nbllm.core.ports import RateLimits, Wire
from nbllm.core.pricing import cost
from nbllm.providers.sim_options import MODELS, parse
from nbllm.providers.sim_pace import tokens
from nbllm.providers.simulated import Simulated, speed_from
from nbllm.settings import Endpoint
from nbllm.testing import FakeClock, offline, run_virtual

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


# ---------------------------------------------------------------------------------------------------- answers


def test_a_summary_is_made_of_the_text() -> None:
    """Three bullets are asked for and given, each a sentence of the text."""
    _, seen = play(f"Summarise {DOC} in three bullets.")
    bullets = seen.text.split("\n")
    flat = " ".join(DOC.split())
    assert len(bullets) == 3
    for bullet in bullets:
        assert bullet.startswith("- ")
        assert bullet[2:].rstrip(" .…") in flat


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (f"{DOC}\n\nWhen was the old ship sold?", "1924"),
        (f"How many people were in the crew?\n\n{DOC}", "150"),
        (f"{DOC}\nWho found the broken end?", "Trott"),
        ("Classify the sentiment of this review as positive, negative or neutral: It broke and support was rude.", "negative"),
        ("What is 17*23?", "391"),
        ("Reply with exactly: pong", "pong"),
        ("Say hi", "Hi!"),
        (f"Give me a title for this text:\n{DOC}", "Faraday"),
    ],
)
def test_questions_are_answered_from_the_text(prompt: str, answer: str) -> None:
    """Dates, counts, people, labels and sums come out right."""
    assert answer in play(prompt)[1].text


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (f"{DOC}\n\nWhat is the capital of Mongolia?", "does not say"),
        ("Explain quantum tunnelling in two sentences.", "nothing in the prompt"),
        ("Translate into French: The ship left the yard.", "I cannot translate into French"),
    ],
)
def test_what_it_cannot_do_it_says(prompt: str, said: str) -> None:
    """No fact, no translation is invented."""
    assert said in play(prompt)[1].text


def test_a_conversation_goes_on() -> None:
    """A question without a text of its own is answered from the earlier messages; a tool's result is used."""
    earlier = (
        {"role": "user", "content": f"Summarise this:\n\n{DOC}"},
        {"role": "assistant", "content": "- A ship."},
        {"role": "user", "content": "When was the ship sold?"},
    )
    assert "1924" in play(Chat(messages=earlier))[1].text
    parts = ({"role": "user", "content": [{"type": "text", "text": DOC}, {"type": "text", "text": "When was the ship sold?"}]},)
    assert "1924" in play(Chat(messages=parts))[1].text


@given(st.text(max_size=400), st.sampled_from(["", "Summarise in three bullets:\n\n", "Classify as a or b: ", "Translate to X: "]))
def test_any_prompt_is_answered(text: str, task: str) -> None:
    """No prompt makes it fail, and none gets an empty success."""
    ending, seen = play(task + text, provider=Simulated(speed=0))
    assert seen.text
    assert ending.finish_reason == "stop"


@given(st.text(max_size=300))
def test_tokens_are_the_text(text: str) -> None:
    """Joined, the tokens are the text again."""
    assert "".join(tokens(text)) == text


# ---------------------------------------------------------------------------------------------------- usage, logprobs, reasoning


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


# ---------------------------------------------------------------------------------------------------- tools and JSON

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}


@pytest.mark.parametrize("streamed", [True, False])
def test_a_tool_is_called_when_asked_for(streamed: bool) -> None:
    """The call fits the tool's schema, its arguments come from the prompt, and it ends with tool_calls."""
    ending, seen = play(chat("What is the weather in Gdansk today, in celsius?", tools=(WEATHER,)), streamed=streamed)
    name, arguments = seen.tool
    assert name == "get_weather"
    assert json.loads(arguments) == {"city": "Gdansk", "unit": "celsius"}
    assert ending.finish_reason == "tool_calls"
    assert seen.text == ""


def test_a_tool_is_not_called_without_need() -> None:
    """Another question is answered in text; so is one whose tool has answered, from the result."""
    assert "1924" in play(chat(f"{DOC}\n\nWhen was the ship sold?", tools=(WEATHER,)))[1].text
    done = (
        {"role": "user", "content": "What is the weather in Gdansk?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "The weather in Gdansk is 4 degrees and rain."},
    )
    assert "4 degrees" in play(Chat(messages=done, tools=(WEATHER,)))[1].text


def test_tool_choice_is_honoured() -> None:
    """Required and a named tool force a call, none forbids it."""
    assert play(chat("Say hi", tools=(WEATHER,), extra={"tool_choice": "required"}))[0].finish_reason == "tool_calls"
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert play(chat("Say hi", tools=(WEATHER,), extra={"tool_choice": named}))[0].finish_reason == "tool_calls"
    forbidden = play(chat("What is the weather in Gdansk?", tools=(WEATHER,), extra={"tool_choice": "none"}))
    assert forbidden[0].finish_reason == "stop"


def test_json_in_the_shape_of_a_schema() -> None:
    """schema= and response_format give valid JSON that uses the text."""
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 60},
            "key_points": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 4},
            "year": {"type": "integer", "minimum": 1800, "maximum": 2000},
            "tone": {"enum": ["dry", "warm"]},
            "ship": {"$ref": "#/$defs/Ship"},
        },
        "required": ["title", "key_points", "year", "tone", "ship"],
        "$defs": {"Ship": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
        "additionalProperties": False,
    }
    for content in (
        chat(f"Describe:\n{DOC}", json_schema=schema),
        chat(f"Describe:\n{DOC}", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
    ):
        data = json.loads(play(content)[1].text)
        jsonschema.validate(data, schema)
        assert data["year"] in {1874, 1924}
        assert data["ship"]["name"] == "Faraday"
        assert all(point.rstrip(" .…") in " ".join(DOC.split()) for point in data["key_points"])


def test_any_json_object() -> None:
    """Without a schema the keys that the prompt names are there."""
    prompt = f'Return JSON with "title" and "summary".\n\n{DOC}'
    data = json.loads(play(chat(prompt, response_format={"type": "json_object"}))[1].text)
    assert set(data) == {"title", "summary"}


# ---------------------------------------------------------------------------------------------------- embeddings


def test_similar_texts_have_similar_vectors() -> None:
    """Unit vectors of 256 dimensions; a paraphrase is nearer than another subject; equal texts are equal."""
    texts = ("The ship laid a cable.", "Ships that lay cables.", "Bread needs flour and yeast.", "The ship laid a cable.", "")
    ending, seen = play(Embed(texts=texts))
    assert ending.vectors is not None
    a, b, c, again, empty = ending.vectors
    assert {len(vector) for vector in ending.vectors} == {256}
    assert all(math.isclose(sum(x * x for x in vector), 1) for vector in (a, b, c, empty))
    assert a == again
    near, far = (sum(x * y for x, y in zip(a, other, strict=True)) for other in (b, c))
    assert near > 0.3 > far
    assert ending.usage.input_tokens
    assert cost(ending.usage, MODELS["small"].price)
    assert len(seen.sent_s) == 1


def test_wrong_names_are_refused_before_anything_is_sent() -> None:
    """A model that does not exist, or an option with a typo, names what there is."""
    seen = Seen()
    for model, said in [
        ("medium", "no simulated model 'medium'"),
        ("large?falt=stall", "Did you mean fault"),
        ("large?fault=stal", "Did you mean stall"),
        ("large?seed=x", "seed must be a number"),
        ("large?fault_rate=2", "fault_rate must be a number from 0 to 1"),
        ("large?after_tokens=1.5", "whole number"),
        ("large?stall", "no option"),
    ]:
        with pytest.raises(errors.UnknownModel, match=said.replace("?", r"\?")):
            run_virtual(Simulated().send(wire(chat("Say hi"), model), seen))
    assert seen.sent_s == []


def test_options_are_read() -> None:
    """What stands behind the question mark arrives, the short form of 429 too."""
    assert parse("small?429_after=2&seed=-3").retry_after_s == 2
    assert parse("small?429_after=2&seed=-3").fault == "429"
    assert parse("small?429_after=2&seed=-3").seed == -3
