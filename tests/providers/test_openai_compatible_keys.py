"""One request with a key: it goes to its own hosts only, and is shown nowhere."""

from __future__ import annotations

import pytest

from nbllm.core.messages import Chat
from nbllm.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InvalidRequest,
    KeyNotAllowed,
    RedirectRefused,
)
from nbllm.providers.openai_compatible import OpenAICompatible
from tests import fault_behaviours as faults
from tests.fault_server import FaultServer
from tests.providers.helpers import BOTH, HELLO, Heard, endpoint, run, wire


def test_a_redirect_is_not_followed() -> None:
    """The place that a redirect names never hears of the request, and so never of the key."""

    async def scenario() -> None:
        async with FaultServer() as server, FaultServer() as elsewhere:
            place = endpoint(server.base_url, api_key="secret-key-123456")
            server.script("m", [faults.redirect(f"{elsewhere.base_url}/chat/completions")])
            provider = OpenAICompatible({})
            with pytest.raises(RedirectRefused):
                await provider.send(wire(place), Heard())
            assert elsewhere.connections == 0
            await provider.aclose()

    run(scenario())


@BOTH
def test_a_key_that_the_provider_repeats_is_shown_nowhere(streamed: bool) -> None:
    """A 401 that echoes the key: not in the message, hint, repr, cause, nor in any variable's repr of the traceback's frames."""
    key = "zebra-93-quilt-unusual-key"

    async def scenario() -> AuthenticationFailed:
        async with FaultServer() as server:
            server.script("m", [faults.wrong_key()])
            provider = OpenAICompatible({"LAB_KEY": key})
            with pytest.raises(AuthenticationFailed) as caught:
                await provider.send(wire(endpoint(server.base_url, api_key_env="LAB_KEY"), streamed=streamed), Heard())
            assert server.requests[0].headers["authorization"] == f"Bearer {key}"
            await provider.aclose()
            return caught.value

    error = run(scenario())
    shown = [str(error), repr(error), error.hint, repr(error.__cause__), repr(error.__context__)]
    frame = error.__traceback__
    while frame is not None:
        if "nbllm" in frame.tb_frame.f_code.co_filename and "tests" not in frame.tb_frame.f_code.co_filename:
            shown += [repr(value) for value in frame.tb_frame.f_locals.values()]
        frame = frame.tb_next
    assert "answered 401" in shown[0]
    assert not [text for text in shown if key in text or key[:8] in text]


def test_a_header_that_names_a_variable_is_filled_when_it_is_sent() -> None:
    """A provider's key in a header of a foreign host is refused before a socket is opened; a variable of one's own is sent."""

    async def scenario() -> None:
        async with FaultServer() as server:
            environ = {"OPENAI_API_KEY": "value-of-openai-key", "LAB_KEY": "first"}
            provider = OpenAICompatible(environ)
            with pytest.raises(KeyNotAllowed, match="OPENAI_API_KEY"):
                await provider.send(wire(endpoint(server.base_url, headers={"x": "$OPENAI_API_KEY"})), Heard())
            assert server.connections == 0
            place = endpoint(server.base_url, headers={"x-lab": "$LAB_KEY"})
            await provider.send(wire(place), Heard())
            environ["LAB_KEY"] = "second"
            await provider.send(wire(place), Heard())
            assert [request.headers["x-lab"] for request in server.requests] == ["first", "second"]
            environ["LAB_KEY"] = "two\r\nlines"
            with pytest.raises(ConfigurationError, match="x-lab"):
                await provider.send(wire(place), Heard())
            assert len(server.requests) == 2
            await provider.aclose()

    run(scenario())


def test_what_must_not_go_out_does_not() -> None:
    """A provider's key for a foreign host, a missing key and a request that makes no sense open no connection."""

    async def scenario() -> None:
        async with FaultServer() as server:
            provider, heard = OpenAICompatible({"OPENAI_API_KEY": "sk-secret"}), Heard()
            with pytest.raises(KeyNotAllowed):
                await provider.send(wire(endpoint(server.base_url, api_key_env="OPENAI_API_KEY")), heard)
            with pytest.raises(AuthenticationFailed, match="LAB_KEY") as caught:
                await provider.send(wire(endpoint(server.base_url, api_key_env="LAB_KEY")), heard)
            assert caught.value.rung == "lab/m"
            with pytest.raises(InvalidRequest):
                await provider.send(wire(server.base_url, Chat(messages=HELLO.messages, extra={"n": 2})), heard)
            assert (server.connections, heard.sent_count) == (0, 0)
            await provider.aclose()

    run(scenario())
