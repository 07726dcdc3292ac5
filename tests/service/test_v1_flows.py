"""Flows as models on /v1: arguments from the last message, the result as the answer, streams, refusals, Idempotency-Key."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from nbllm import ask, flow
from nbllm.service import create_app
from tests.service.running import Running, running, write_settings

openai = pytest.importorskip("openai")
CALLS: list[str] = []


class Triage(BaseModel):
    """What a ticket is about."""

    area: str
    urgent: bool


@flow
def shout(text: str, mark: str = "!") -> str:
    """Say it louder."""
    CALLS.append(text)
    return f"{text.upper()}{mark}"


@flow
def triage(ticket: str, lang: str) -> Triage:
    """Read a ticket."""
    said = ask(f"What is this about, in {lang}?\n{ticket}", model="sim/small").text
    return Triage(area=said[:10] or "none", urgent="!" in ticket)


@flow
def broken(text: str) -> str:
    """Fail."""
    raise RuntimeError(f"secret detail {text}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One app with three flows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        with running(create_app([shout, triage, broken], write_settings(tmp_path_factory.mktemp("app")))) as app:
            yield app


@pytest.fixture
def sdk(served: Running) -> Iterator[openai.OpenAI]:
    """The SDK."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        yield client


def said(text: str) -> list[dict[str, str]]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": text}]


def test_a_flow_of_one_text_takes_the_message(sdk: openai.OpenAI) -> None:
    """A text is its argument, as it is, also when it looks like arguments: who wrote it sets no others."""
    answer = sdk.chat.completions.create(model="flow/shout", messages=said("hello"))
    assert answer.choices[0].message.content == "HELLO!"
    assert answer.model == "flow/shout"
    other = sdk.chat.completions.create(model="flow/shout", messages=said('{"text": "hello", "mark": "?"}'))
    assert other.choices[0].message.content == '{"TEXT": "HELLO", "MARK": "?"}!'


def test_a_flow_of_several_arguments_takes_json_and_gives_json(sdk: openai.OpenAI) -> None:
    """Its result is JSON; headers and usage are of the calls that it made."""
    text = json.dumps({"ticket": "The printer burns!", "lang": "en"})
    raw = sdk.chat.completions.with_raw_response.create(model="flow/triage", messages=said(text))
    answer = raw.parse()
    assert Triage.model_validate_json(answer.choices[0].message.content).urgent
    assert answer.usage.completion_tokens > 0
    assert float(raw.headers["x-cost-usd"]) > 0
    assert raw.headers["x-rung"] == "sim/small"


def test_a_flow_streams_its_result_when_it_is_there(sdk: openai.OpenAI) -> None:
    """The same text in chunks, with usage where it is asked for."""
    options = {"include_usage": True}
    chunks = list(sdk.chat.completions.create(model="flow/shout", messages=said("hi"), stream=True, stream_options=options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "HI!"
    assert chunks[-1].usage.total_tokens == 0


def test_flows_are_among_the_models(sdk: openai.OpenAI) -> None:
    """They are listed as flow/<name>, and embed nothing."""
    assert {"flow/shout", "flow/triage", "flow/broken"} <= {model.id for model in sdk.models.list()}
    with pytest.raises(openai.NotFoundError, match="embeds nothing"):
        sdk.embeddings.create(model="flow/shout", input="x")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_flow_that_fails_says_so_and_no_more(sdk: openai.OpenAI, streamed: bool) -> None:
    """Its exception is named, its text is not shown; streamed or not it is a 500."""
    with pytest.raises(openai.InternalServerError) as failed:
        sdk.chat.completions.create(model="flow/broken", messages=said("x"), stream=streamed)
    assert "RuntimeError" in str(failed.value)
    assert "secret detail" not in str(failed.value)


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        (said("no json"), {}), (said('{"ticket": 1, "lang": "en"}'), {}), (said('{"ticket": "x"}'), {}),
        ([{"role": "system", "content": "Be brief."}, *said('{"ticket": "x", "lang": "en"}')], {}),
        ([{"role": "assistant", "content": "x"}], {}), ([{"role": "user", "content": [{"type": "image_url"}]}], {}),
        (said('{"ticket": "x", "lang": "en"}'), {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (said('{"ticket": "x", "lang": "en"}'), {"logprobs": True}),
    ],
)  # fmt: skip
def test_what_a_flow_cannot_take_is_refused(sdk: openai.OpenAI, messages: list[object], more: dict[str, object]) -> None:
    """Missing and wrong arguments, another role, pictures, and what would shape an answer of a model."""
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model="flow/triage", messages=messages, **more)


def test_an_idempotency_key_runs_it_once(sdk: openai.OpenAI) -> None:
    """The same key and body get the same bytes and no second run; another body is refused; streams take none."""
    CALLS.clear()
    key = {"Idempotency-Key": "once-1"}
    first = sdk.chat.completions.with_raw_response.create(model="flow/shout", messages=said("once"), extra_headers=key)
    again = sdk.chat.completions.with_raw_response.create(model="flow/shout", messages=said("once"), extra_headers=key)
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert CALLS == ["once"]
    with pytest.raises(openai.UnprocessableEntityError):
        sdk.chat.completions.create(model="flow/shout", messages=said("other"), extra_headers=key)
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model="flow/shout", messages=said("once"), stream=True, extra_headers=key)
