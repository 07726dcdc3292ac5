"""HTTP errors and exceptions of aiohttp, as nbllm's errors."""

from __future__ import annotations

import inspect
import json
import ssl
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from nbllm import errors
from nbllm.errors import AttemptFailed, BadParameter, ConnectionFailed, RateLimited
from nbllm.providers.failures import Where, http_failure, shorten
from nbllm.providers.transport_failures import MAPPED, harmless, transport_failure

WHERE = Where("lab/m", "models.example")
NOW = 1_800_000_000.0


def classify(status: int, body: Any, **headers: str) -> AttemptFailed:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http_failure(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, WHERE, now_unix_s=NOW)


def openai(message: str = "No.", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}}


def test_a_401_without_a_key_says_that_none_was_sent() -> None:
    """Checking a key that is not there helps nobody: the hint names api_key_env. With a key it is that key to look at."""
    bare = Where("lab/m", "models.example", keyed=False)
    error = http_failure(401, {}, b"", bare, now_unix_s=NOW)
    assert "No key was sent" in error.hint
    assert "api_key_env" in error.hint
    assert "Check the key" in http_failure(401, {}, b"", WHERE, now_unix_s=NOW).hint


WORDINGS = [
    # who says it, status, body, error
    ("OpenAI", 400, openai(code="context_length_exceeded", param="messages"), "ContextTooLong"),
    ("OpenAI", 400, openai("Unsupported value", param="temperature", code="unsupported_value"), "BadParameter"),
    ("OpenAI", 404, openai(code="model_not_found"), "ModelNotFound"),
    ("OpenAI", 401, openai(code="invalid_api_key"), "AuthenticationFailed"),
    ("OpenAI", 403, openai(code="unsupported_country_region_territory"), "PermissionDenied"),
    ("OpenAI", 429, openai(code="insufficient_quota", type="insufficient_quota"), "RateLimited"),
    ("Azure", 400, openai(code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), "Refused"),
    ("Azure", 400, openai(innererror={"code": "ResponsibleAIPolicyViolation"}), "Refused"),
    ("vLLM", 400, openai("This model's maximum context length is 1024 tokens.", type="BadRequestError"), "ContextTooLong"),
    ("vLLM", 400, openai("Too long.", param="input_tokens", code=400), "ContextTooLong"),
    ("vLLM", 400, openai("The prompt (length 1200) is longer than the maximum model length of 1024."), "ContextTooLong"),
    ("vLLM", 404, openai("The model `x` does not exist.", type="NotFoundError", code=404), "ModelNotFound"),
    ("llama.cpp", 400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "x"}}, "ContextTooLong"),
    ("llama.cpp", 400, {"error": {"code": 400, "message": "the request exceeds the available context size"}}, "ContextTooLong"),
    ("llama.cpp", 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, "ServerFailed"),
    ("Ollama", 400, {"error": "input length exceeds the context length"}, "ContextTooLong"),
    ("Ollama", 404, {"error": {"message": 'model "x" not found, try pulling it first'}}, "ModelNotFound"),
    ("OpenRouter", 400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}, "ModelNotFound"),
    ("OpenRouter", 402, {"error": {"message": "Insufficient credits", "code": 402}}, "PermissionDenied"),
    ("DeepSeek", 400, openai("Model Not Exist"), "ModelNotFound"),
    ("xAI", 400, {"code": "invalid argument", "error": "Incorrect API key provided: x."}, "AuthenticationFailed"),
    ("Gemini", 400, [{"error": {"code": 400, "message": "API key not valid."}}], "AuthenticationFailed"),
    ("Groq", 413, openai("Request too large for model", code="rate_limit_exceeded"), "ContextTooLong"),
    ("Mistral", 422, {"object": "error", "message": {"detail": [{"loc": ["body", "top_p"], "msg": "x"}]}}, "BadParameter"),
    ("FastAPI", 422, {"detail": [{"loc": ["body", "messages", 0], "msg": "field required"}]}, "BadParameter"),
    ("a proxy", 502, b"<html><h1>Bad gateway</h1></html>", "ServerFailed"),
    ("a proxy", 408, b"", "ServerFailed"),
    ("a proxy", 301, b"", "RedirectRefused"),
    ("a proxy", 204, b"", "BadAnswer"),
    ("a web server", 405, b"<html>", "ModelNotFound"),
    # Words that only look like a cause decide nothing.
    ("anyone", 400, openai("temperature must be below 2; see the page on context length", param="temperature"), "BadParameter"),
    ("anyone", 503, openai("The content filter service is down"), "ServerFailed"),
    ("anyone", 429, openai("model not found in the rate table"), "RateLimited"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "status", "body", "error"), WORDINGS, ids=[f"{row[0]} {row[1]} {row[3]} {n}" for n, row in enumerate(WORDINGS)]
)
def test_each_servers_way_to_say_it(who: str, status: int, body: Any, error: str) -> None:
    """Status and structured fields decide first, then narrow documented wordings; the message names rung, host and status."""
    found = classify(status, body)
    assert type(found).__name__ == error, found
    assert (found.rung, found.status) == ("lab/m", status)
    assert "lab/m" in found.summary
    assert "models.example" in found.summary
    assert found.hint or isinstance(found, (errors.ServerFailed, errors.BadAnswer))


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (openai(param="seed"), "seed"),
        (openai("Unrecognized request argument supplied: top_k"), "top_k"),
        (openai("Unknown parameter: 'response_format.x'."), "response_format.x"),
        (openai("property 'logprobs' is unsupported"), "logprobs"),
        (openai("[{'type': 'less_than_equal', 'loc': ('body', 'temperature'), 'msg': 'x'}]"), "temperature"),
        (openai("temperature must be non-negative, got -1.0."), "temperature"),
        ({"detail": [{"loc": ["body", "top_p"], "msg": "x"}]}, "top_p"),
        (openai("Something else."), None),
    ],
)
def test_a_bad_parameter_is_named_where_the_server_names_it(body: Any, parameter: str | None) -> None:
    """From `param`, FastAPI's `loc`, or the documented wordings; None when nobody says."""
    found = classify(400, body)
    assert isinstance(found, BadParameter)
    assert found.parameter == parameter
    assert parameter is None or parameter in found.hint


@pytest.mark.parametrize(("sent", "wait_s"), [("5", 5.0), ("0", 0.0), ("nonsense", None), ("-3", None)])
def test_retry_after_is_read_for_429_and_503(sent: str, wait_s: float | None) -> None:
    """Seconds are passed on, nonsense is None."""
    for status in (429, 503):
        assert classify(status, openai(), Retry_After=sent).retry_after_s == wait_s


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"3", b'"x"', b"[" * 100_000, b'{"error": 3}', b'{"error": {"message": 3}}', b"\xff\xfe"]
)
def test_any_body_is_an_error_of_the_status(body: bytes) -> None:
    """An error body that makes no sense never hides the status."""
    for status, error in ((500, errors.ServerFailed), (429, RateLimited), (400, BadParameter), (401, errors.AuthenticationFailed)):
        assert type(classify(status, body)) is error


def test_messages_are_short_one_line_and_without_secrets() -> None:
    """What a provider says is cut to 300 characters; no eight characters in a row of a secret are left, nor control characters."""
    secret = "abcdefghijklmnop"
    text = shorten(f"key {secret}, half abcdefghij, tail\n\x1b[31m ijklmnop " + "x" * 1000, (secret,))
    assert len(text) == 300
    assert "\n" not in text
    assert "\x1b" not in text
    assert not any(secret[n : n + 8] in text for n in range(9))
    assert shorten("fine, " + secret[:5], (secret,)) == "fine, abcde"


# ------------------------------------------------------------------------------------------------ aiohttp's exceptions

CLASSES = [
    found
    for _, found in inspect.getmembers(client_exceptions, inspect.isclass)
    if issubclass(found, Exception) and found.__module__ == client_exceptions.__name__
]
WHOLE_ENDPOINT = {
    "ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorCertificateError", "ClientConnectorSSLError",
    "ClientSSLError", "ClientProxyConnectionError", "UnixClientConnectorError", "ServerFingerprintMismatch", "ClientHttpProxyError",
    "ConnectionTimeoutError",
}  # fmt: skip


def blank(found: type[BaseException]) -> BaseException:
    """An instance without the constructor's arguments, which differ from class to class."""
    exc = found.__new__(found)
    if issubclass(found, client_exceptions.ClientConnectorError):
        exc._os_error = OSError(111, "Connection refused")  # type: ignore[attr-defined] # as its constructor does
    if issubclass(found, client_exceptions.ClientConnectorCertificateError):
        exc._certificate_error = ssl.SSLCertVerificationError(1, "x")  # type: ignore[attr-defined]
    if issubclass(found, client_exceptions.ClientResponseError):
        exc.status, exc.message = 400, "x"  # type: ignore[attr-defined]
    return exc


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_every_exception_of_aiohttp_has_an_entry_of_its_own(found: type[Exception]) -> None:
    """A class that a new aiohttp adds fails here until it is decided what it means; DNS, TLS and refused blame the endpoint."""
    assert found in {entry[0] for entry in MAPPED}
    failed = transport_failure(blank(found), WHERE)
    expected = next(entry for entry in MAPPED if entry[0] is found)
    assert type(failed) is expected[1][0]
    assert expected[2] in failed.summary
    assert isinstance(failed, ConnectionFailed) or found.__name__ not in WHOLE_ENDPOINT
    if isinstance(failed, ConnectionFailed):
        assert failed.whole_endpoint is (found.__name__ in WHOLE_ENDPOINT)


def test_the_table_is_ordered_most_specific_first() -> None:
    """No entry stands behind one of its own base classes, where it could never be reached."""
    for place, (found, *_) in enumerate(MAPPED):
        for earlier in (entry[0] for entry in MAPPED[:place]):
            assert not issubclass(found, earlier), f"{found.__name__} is behind {earlier.__name__}"


def test_other_exceptions_of_the_network_are_connections_that_failed() -> None:
    """Plain socket and TLS errors, and anything unheard of, become ConnectionFailed."""
    for exc in (ConnectionResetError(104, "reset"), ssl.SSLError(1, "x"), TimeoutError(), BrokenPipeError(), KeyError("?")):
        assert isinstance(transport_failure(exc, WHERE), ConnectionFailed)


def test_a_cause_shows_no_header() -> None:
    """The errors of aiohttp carry the request's headers; what is kept as the cause does not."""
    headers = CIMultiDictProxy(CIMultiDict({"Authorization": "Bearer hidden-key"}))
    url = URL("http://models.example/v1?key=hidden-key")
    exc = aiohttp.ClientResponseError(aiohttp.RequestInfo(url, "POST", headers, url), (), status=400, message="x", headers=headers)
    safe = harmless(exc)
    assert "hidden" not in repr(safe) + str(safe) + repr(vars(safe)) + repr(safe.args)
    assert safe.__traceback__ is None


def test_the_systems_words_are_kept_and_whole_addresses_are_not() -> None:
    """Refused connections say what the system said, and name the host but no path or query."""
    key = ConnectionKey("models.example", 80, False, True, None, None, None)
    failed = transport_failure(client_exceptions.ClientConnectorError(key, OSError(111, "Connection refused")), WHERE)
    assert failed.summary == "lab/m: models.example: the connection was refused or could not be made (Connection refused)."
