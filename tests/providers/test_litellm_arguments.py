"""What LiteLLM is called with: arguments, keys and addresses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import Chat, Rung
from nbllm.providers.catalog import Catalog
from nbllm.providers.litellm import LiteLLM
from nbllm.providers.litellm_request import arguments_for, key_to_pass
from nbllm.settings import Endpoint
from tests.providers.helpers import HELLO, Heard, catalog_wire
from tests.providers.test_litellm_faults import wire

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own deprecations and sockets; see test_litellm_faults


def test_arguments() -> None:
    """Everything of the request, our limits, no retries, and a copy that LiteLLM may change."""
    content = Chat(
        messages=({"role": "user", "content": "Hi"},),
        temperature=0.5,
        max_tokens=7,
        stop=("x",),
        seed=3,
        logprobs=2,
        json_schema={"type": "object", "title": "Out"},
        extra={"thinking": {"type": "enabled"}},
    )
    made = arguments_for(wire("https://api.anthropic.com", content, streamed=True, provider="anthropic", deadline_s=20))
    assert made["model"] == "anthropic/m"
    assert (made["num_retries"], made["max_retries"], made["drop_params"]) == (0, 0, False)
    assert made["api_base"] == "https://api.anthropic.com"
    assert made["timeout"] == 30
    assert (made["temperature"], made["max_tokens"], made["stop"], made["seed"]) == (0.5, 7, ["x"], 3)
    assert (made["logprobs"], made["top_logprobs"]) == (True, 2)
    assert made["response_format"]["json_schema"]["schema"] == {"type": "object", "title": "Out"}
    assert made["thinking"] == {"type": "enabled"}
    assert made["stream_options"] == {"include_usage": True}
    made["messages"][0]["content"] = "changed"
    assert content.messages[0]["content"] == "Hi"


@pytest.mark.parametrize(
    "name", ["api_key", "api_base", "base_url", "num_retries", "fallbacks", "mock_response", "client", "aws_secret_access_key"]
)
def test_extra_may_not_take_control(name: str) -> None:
    """Nothing in extra can send the request elsewhere, repeat it, fake it, or hold a secret."""
    with pytest.raises(errors.InvalidRequest, match=name):
        arguments_for(wire("https://x.example", Chat(messages=HELLO.messages, extra={name: "x"})))


@pytest.mark.parametrize(
    ("model_id", "environ", "key"),
    [
        ("anthropic/m", {"ANTHROPIC_API_KEY": " sk-1 "}, "sk-1"),
        ("gemini/m", {"GOOGLE_API_KEY": "g"}, "g"),
        ("azure/m", {"AZURE_API_KEY": "a", "AZURE_API_BASE": "https://r.openai.azure.com"}, "a"),
        ("replicate/m", {"REPLICATE_API_TOKEN": "r"}, "r"),
        ("bedrock/m", {}, None),
        ("vertex_ai/m", {}, None),
        ("nlp_cloud/m", {"NLP_CLOUD_API_KEY": "n"}, "n"),
        ("nlp_cloud/m", {}, None),
    ],
)
def test_keys(model_id: str, environ: dict[str, str], key: str | None) -> None:
    """Each provider's own variable is read; account credentials and unknown variables are LiteLLM's to find."""
    assert key_to_pass(Catalog({}, environ).rung(model_id), environ) == key


@pytest.mark.parametrize(
    ("model_id", "environ", "kind", "said"),
    [
        ("anthropic/m", {}, errors.AuthenticationFailed, "ANTHROPIC_API_KEY is not set"),
        ("replicate/m", {}, errors.AuthenticationFailed, "REPLICATE_API_KEY is not set"),
        ("azure/m", {"AZURE_API_KEY": "k"}, errors.ConfigurationError, "AZURE_API_BASE is not set"),
        ("azure/m", {"AZURE_API_KEY": "k", "AZURE_API_BASE": "https://evil.example"}, errors.KeyNotAllowed, "Nothing was sent"),
        ("azure/m", {"AZURE_API_KEY": "k", "AZURE_API_BASE": "http://r.openai.azure.com"}, errors.KeyNotAllowed, "unencrypted"),
    ],
)
def test_missing_and_misdirected_keys(model_id: str, environ: dict[str, str], kind: type[Exception], said: str) -> None:
    """Said before anything is imported or sent, with the name of the variable."""
    with pytest.raises(kind, match=said):
        key_to_pass(Catalog({}, environ).rung(model_id), environ)


def test_a_key_that_only_litellm_knows_of(litellm: Any) -> None:
    """For a provider without a row of ours, LiteLLM names the variable that is missing; nothing is sent."""

    async def main() -> None:
        provider, heard = LiteLLM({}), Heard()
        with pytest.raises(errors.AuthenticationFailed, match="NLP_CLOUD_API_KEY"):
            await provider.send(catalog_wire("nlp_cloud/dolphin", {}), heard)
        await provider.aclose()
        assert heard.sent_count == 0

    asyncio.run(main())


def test_rungs_of_the_catalog_are_what_the_provider_takes() -> None:
    """From an id to arguments, address and key, without the network."""
    environ = {"COHERE_API_KEY": "c"}
    request = catalog_wire("cohere/command-r7b-12-2024", environ)
    assert arguments_for(request)["api_base"] == "https://api.cohere.com/v2/chat"
    assert key_to_pass(request.rung, environ) == "c"
    assert isinstance(request.rung, Rung)
    assert request.rung.endpoint == Endpoint(base_url="https://api.cohere.com/v2/chat", api_key_env="COHERE_API_KEY")
