"""What LiteLLM raises, as nbllm's errors: one table, most specific first. A test fails for a class that is not in it.

LiteLLM says "500" for much that is no 500: a refused connection, a name that does not resolve, an answer that is no JSON. What
really happened stands in the chain of causes, so that is looked at first. Classes are known by name: this file imports nothing
of litellm, openai or httpx.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from nbllm.errors import (
    AttemptFailed,
    AttemptTimeout,
    AuthenticationFailed,
    BadAnswer,
    BadParameter,
    ConfigurationError,
    ConnectionFailed,
    ContextTooLong,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    Refused,
    ServerFailed,
    StreamInterrupted,
)
from nbllm.providers.failures import ErrorObject, Where, failure, shorten
from nbllm.providers.limits import retry_after_s
from nbllm.redaction import redact

TABLE: tuple[tuple[str, type[AttemptFailed]], ...] = (
    ("ContextWindowExceededError", ContextTooLong),
    ("ContentPolicyViolationError", Refused),
    ("RejectedRequestError", Refused),
    ("GuardrailRaisedException", Refused),
    ("BlockedPiiEntityError", Refused),
    ("ModifyResponseException", Refused),
    ("SensitiveDataRouteException", Refused),
    ("UnsupportedParamsError", BadParameter),
    ("PaymentRequiredError", PermissionDenied),
    ("LiteLLMUnknownProvider", ModelNotFound),
    ("ImageFetchError", BadParameter),
    ("VectorStoreSearchError", BadParameter),
    ("InvalidRequestError", BadParameter),
    ("BadRequestError", BadParameter),
    ("UnprocessableEntityError", BadParameter),
    ("AuthenticationError", AuthenticationFailed),
    ("PermissionDeniedError", PermissionDenied),
    ("NotFoundError", ModelNotFound),
    ("ModelNotMappedError", ModelNotFound),
    ("RateLimitError", RateLimited),
    ("BudgetExceededError", PermissionDenied),
    ("Timeout", AttemptTimeout),
    ("MidStreamFallbackError", ServerFailed),
    ("ServiceUnavailableError", ServerFailed),
    ("BadGatewayError", ServerFailed),
    ("InternalServerError", ServerFailed),
    ("JSONSchemaValidationError", BadAnswer),
    ("APIResponseValidationError", BadAnswer),
    ("APIConnectionError", ConnectionFailed),
    ("MockException", ServerFailed),
    ("APIError", ServerFailed),
    ("OpenAIError", ServerFailed),
)
"""Name of LiteLLM's class, what it becomes where neither a cause nor an HTTP answer says more."""

_BY_CLASS_ONLY = {"ContextWindowExceededError", "ContentPolicyViolationError", "RejectedRequestError", "UnsupportedParamsError"}
"""What LiteLLM knows better than the HTTP answer: it reads each provider's wordings."""

_CONNECT = {
    "ConnectError",
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientSSLError",
    "gaierror",
    "ConnectionRefusedError",
}
_BROKEN = {"ConnectionResetError", "ReadError", "WriteError", "CloseError", "RemoteProtocolError", "ServerDisconnectedError"} | {
    "ClientPayloadError",
    "ClientOSError",
    "BrokenPipeError",
}
_SILENT = {"ConnectTimeout", "ReadTimeout", "WriteTimeout", "PoolTimeout", "TimeoutException", "APITimeoutError"}
_PARAMETER = re.compile(r"does not support (?:the )?(?:parameters?|params?):? (?:\[|\{)?'?([\w.]+)|parameter '?([\w.]+)'?")


def translate(exc: BaseException, where: Where, *, began: bool) -> AttemptFailed | ConfigurationError:
    """Return nbllm's error for what LiteLLM raised. began: a piece of a stream was already told."""
    chain = list(causes(exc))
    names = {name for error in chain for name in _names(error)}
    told = shorten(_message(exc), where.secrets)
    text = f"{where.rung}: {told}" if told else f"{where.rung}: LiteLLM raised {type(exc).__name__}."
    missing = next((error for error in chain if isinstance(error, ModuleNotFoundError)), None)
    if missing is not None:
        return ConfigurationError(
            f"{where.rung}: LiteLLM needs the package {missing.name!r} for this provider. Nothing was sent.",
            hint=f"Install it ({_package(missing.name)}) and call again.",
        )
    if began:
        return StreamInterrupted(text, rung=where.rung)
    transport = _transport(names, text, where)
    if transport is not None:
        return transport
    kind_name, kind = _row(exc)
    if kind_name not in _BY_CLASS_ONLY:
        answered = _by_answer(chain, where)
        if answered is not None:
            return answered
    if "JSONDecodeError" in names:
        return BadAnswer(text, rung=where.rung)
    return _of_kind(kind, exc, text, where)


class Original(Exception):
    """What LiteLLM raised, in words: its own exceptions repeat what a server said, keys included, and hold the request."""


def in_words(exc: BaseException, where: Where) -> Original:
    """Return an exception to stand for LiteLLM's as the cause of ours."""
    return Original(redact(f"{type(exc).__module__}.{type(exc).__name__}: {shorten(_message(exc), where.secrets)}"))


def causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, outermost first."""
    seen: set[int] = set()
    error: BaseException | None = exc
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        original = getattr(error, "original_exception", None)
        error = (
            original if isinstance(original, BaseException) and id(original) not in seen else error.__cause__ or error.__context__
        )


def _names(error: BaseException) -> Iterator[str]:
    return (kind.__name__ for kind in type(error).__mro__)


def _row(exc: BaseException) -> tuple[str, type[AttemptFailed]]:
    """Return the table's row for an error, by the names of its classes; ServerFailed for one that is no class of LiteLLM's."""
    names = set(_names(exc))
    return next(((name, kind) for name, kind in TABLE if name in names), ("", ServerFailed))


def _transport(names: set[str], text: str, where: Where) -> AttemptFailed | None:
    """Return the error for a connection that failed, None when it did not."""
    if names & _SILENT:
        return AttemptTimeout(text, rung=where.rung)
    if "ConnectionResetError" not in names and names & _CONNECT:
        return ConnectionFailed(
            f"{where.rung}: {where.host} could not be reached.",
            whole_endpoint=True,
            rung=where.rung,
            hint="Check the network, and HTTP_PROXY, HTTPS_PROXY and NO_PROXY.",
        )
    if names & _BROKEN:
        return ConnectionFailed(f"{where.rung}: the connection to {where.host} broke.", rung=where.rung)
    return None


def _by_answer(chain: list[BaseException], where: Where) -> AttemptFailed | None:
    """Return the error that the provider's own HTTP answer is, None when none is kept in the chain or LiteLLM made it up."""
    for error in reversed(chain):  # the innermost is the real one
        response = getattr(error, "response", None)
        status, headers = getattr(response, "status_code", None), getattr(response, "headers", None)
        if isinstance(status, int) and status >= 400 and headers:
            body = _body(response)
            said = ErrorObject.read(body)
            return failure(status, said, where, retry_after=retry_after_s(headers, time.time()))
    return None


def _body(response: Any) -> Any:
    try:
        return json.loads(response.content)
    except Exception:  # a stream that was not read, or no JSON: the status alone decides then
        return None


def _of_kind(kind: type[AttemptFailed], exc: BaseException, text: str, where: Where) -> AttemptFailed:
    status = getattr(exc, "status_code", None)
    status = status if isinstance(status, int) and kind is not ConnectionFailed else None
    if kind is ServerFailed and status is not None and 400 <= status < 500:
        return failure(status, ErrorObject(message=_message(exc)), where)
    if kind is BadParameter:
        named = getattr(exc, "param", None) or _parameter(_message(exc))
        return BadParameter(text, parameter=named, rung=where.rung, status=status or 400)
    if kind is ServerFailed and not isinstance(getattr(exc, "response", None), object):
        status = None
    retry_after = _retry_after(exc) if kind in {RateLimited, ServerFailed} else None
    return kind(text, rung=where.rung, status=status, retry_after_s=retry_after)


def _retry_after(exc: BaseException) -> float | None:
    for error in causes(exc):
        headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
        if isinstance(headers, Mapping) and headers:
            return retry_after_s(headers, time.time())
    return None


def _parameter(message: str) -> str | None:
    match = _PARAMETER.search(message)
    return (match[1] or match[2]) if match else None


def _message(exc: BaseException) -> str:
    """Return LiteLLM's message without its class names and without what it adds for its own users."""
    text = str(getattr(exc, "message", "") or exc)
    text = text.partition(" Original exception:")[0].partition("\nTraceback")[0].partition(" Handle with `")[0]
    while (shorter := re.sub(r"^(?:litellm\.\w+:\s*|\w*(?:Error|Exception|Timeout)(?:\s-\s|:\s*))", "", text)) != text:
        text = shorter
    return text


def _package(module: str | None) -> str:
    packages = {"google": "google-auth", "boto3": "boto3", "botocore": "boto3"}
    name = (module or "").partition(".")[0]
    return f"pip install {packages.get(name, name)}"
