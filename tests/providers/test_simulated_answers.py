"""The simulated models: honest answers made of the text, and vectors; what does not exist is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import errors
from nbllm.core.messages import Chat, Embed
from nbllm.core.pricing import cost
from nbllm.providers.sim_options import MODELS, parse
from nbllm.providers.sim_pace import tokens
from nbllm.providers.simulated import Simulated
from nbllm.testing import run_virtual
from tests.providers.simulation import DOC, Seen, chat, play, wire

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
