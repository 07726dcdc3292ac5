"""An HTTP answer that is no success, as one of nbllm's errors.

Decided by the status and by the structured fields code, type and param of the error object first. Only where a server says it in
words alone, a narrow pattern of documented wordings decides; each names its source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbllm.errors import (
    AttemptFailed,
    AuthenticationFailed,
    BadAnswer,
    BadParameter,
    ContextTooLong,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RedirectRefused,
    Refused,
    ServerFailed,
)
from nbllm.providers.limits import retry_after_s

_FILTER_CODES = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "data_inspection_failed",
}
_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded", "input_tokens"}
_MODEL_CODES = {"model_not_found", "invalid_model", "model_not_available", "model_decommissioned", "unknown_model"}
_KEY_CODES = {"invalid_api_key", "api_key_invalid", "incorrect_api_key", "invalid_authentication", "authentication_error"}
_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}

_CONTEXT_TEXT = re.compile(
    r"maximum (?:context|model|prompt) length"  # OpenAI, vLLM, DeepSeek, OpenRouter, xAI, Fireworks, SGLang
    r"|longer than the (?:maximum )?model(?:'s)? (?:context )?length"  # vLLM, SGLang
    r"|exceeds? the (?:available )?context (?:size|length|window)"  # llama.cpp, Ollama
    r"|exceeded max context length"  # Ollama
    r"|too large for model with \d+ maximum context length"  # Mistral
    r"|context overflows"  # LM Studio
    r"|`inputs` tokens \+ `max_new_tokens` must be",  # TGI, Together
    re.IGNORECASE,
)
_MODEL_TEXT = re.compile(
    r"model\b.{0,200}\b(?:not found|does not exist)"  # Ollama, vLLM
    r"|^Model Not Exist$|is not a valid model ID",  # DeepSeek, OpenRouter
    re.IGNORECASE | re.DOTALL,
)
_KEY_TEXT = re.compile(r"^(?:Incorrect API key|API key not valid|Invalid API key)\b", re.IGNORECASE)  # xAI, Gemini's OpenAI door
_PARAMETER_TEXT = (
    re.compile(r"Unrecognized request arguments? supplied: ([\w.]+)"),  # OpenAI
    re.compile(r"Un(?:known|supported) parameter: '([\w.\[\]]+)'"),  # OpenAI
    re.compile(r"property '([\w.]+)' is unsupported"),  # Groq
    re.compile(r"'loc': \('body', '(\w+)'"),  # vLLM: pydantic's errors as text
    re.compile(
        r"^`?(temperature|top_p|top_k|min_p|max_tokens|max_completion_tokens|n|seed|stop|logprobs|top_logprobs)`? (?:must|should)\b"
    ),
)
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Where:
    """What failed, as messages name it: the rung's id and the host. Never a whole address: it may hold a secret.

    endpoint: its name where a settings file defines it, "" otherwise.
    """

    rung: str
    host: str
    secrets: tuple[str, ...] = ()
    keyed: bool = True
    """Whether a key went with the request, or may have: LiteLLM finds credentials of its own."""
    endpoint: str = ""

    @property
    def key_hint(self) -> str:
        """What to do about a key that was refused, or was not there."""
        if self.keyed:
            return "Check the key of this endpoint; it stays off until the settings change."
        return (
            "No key was sent, because this endpoint has none. Put it into an environment variable and name that with "
            'api_key_env, as in Endpoint(..., api_key_env="LAB_KEY").'
        )

    def __repr__(self) -> str:
        """Name the rung and host alone; this stands in tracebacks that show local variables."""
        return f"Where({self.rung!r}, {self.host!r})"


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """The fields of OpenAI's error object, empty where the server sends none. codes: code and type, in lower case."""

    message: str = ""
    codes: frozenset[str] = frozenset()
    param: str | None = None
    status: int | None = None

    @classmethod
    def read(cls, body: Any) -> ErrorObject:
        """Read the shapes that are around: {"error": {...}}, {"error": "text"}, {"detail": ...} (FastAPI), {"message": ...}."""
        if isinstance(body, list) and body:  # Gemini's OpenAI door wraps it in a list
            body = body[0]
        if not isinstance(body, Mapping):
            return cls()
        error = body.get("error", body)
        if isinstance(error, str):
            return cls(message=error)
        if not isinstance(error, Mapping):
            return cls()
        code, param = error.get("code"), error.get("param")
        named = (code, error.get("type"), error.get("status"), _inner_code(error))
        message, located = _message(error)
        return cls(
            message=message,
            codes=frozenset(name.lower() for name in named if isinstance(name, str)),
            param=param if isinstance(param, str) and param else located,
            status=code if isinstance(code, int) and 400 <= code < 600 else None,
        )


def _inner_code(error: Mapping[str, Any]) -> Any:
    inner = error.get("innererror")  # Azure
    return inner.get("code") if isinstance(inner, Mapping) else None


def _message(error: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the message and, from FastAPI's list of errors, the field that the first one is about."""
    detail = error.get("message", error.get("detail", error.get("msg")))
    if isinstance(detail, Mapping) and "detail" in detail:  # Mistral
        detail = detail["detail"]
    if isinstance(detail, list) and detail and isinstance(detail[0], Mapping):
        place = detail[0].get("loc")
        names = [name for name in place if isinstance(name, str) and name != "body"] if isinstance(place, list) else []
        return str(detail[0].get("msg", "")), names[0] if names else None
    return detail if isinstance(detail, str) else "", None


def http_failure(status: int, headers: Mapping[str, str], body: bytes, where: Where, *, now_unix_s: float) -> AttemptFailed:
    """Return the error for an answer that is not 2xx. body: what was read of it, cut or empty perhaps. now_unix_s: for dates."""
    if 300 <= status < 400:
        return RedirectRefused(
            f"{where.rung}: {where.host} answered with a redirect ({status}), which is never followed: the key could go elsewhere.",
            rung=where.rung,
            status=status,
            hint="Set base_url to the address that it redirects to, if you trust it (often https:// or a missing /v1).",
        )
    try:
        error = ErrorObject.read(json.loads(body))
    except (ValueError, RecursionError):
        error = ErrorObject(message="" if b"<" in body[:200] else body[: _SHOWN * 4].decode("utf-8", "replace"))
    return failure(status, error, where, retry_after=retry_after_s(headers, now_unix_s))


def failure(status: int, error: ErrorObject, where: Where, *, retry_after: float | None = None) -> AttemptFailed:
    """Return the error for a status and an error object, from an HTTP answer or from inside a stream."""
    told = shorten(error.message, where.secrets)
    text = f"{where.rung}: {where.host} answered {status}" + (f": {told}" if told else ".")
    common: dict[str, Any] = {"rung": where.rung, "status": status}
    special = _by_content(status, error, text, where, common)
    if special is not None:
        return special
    if status == 429:
        hint = "The account's quota or credit is used up: see the provider's billing page." if error.codes & _QUOTA_CODES else ""
        return RateLimited(text, retry_after_s=retry_after, hint=hint or "Wait, or set rpm= and tpm= of the endpoint.", **common)
    if status == 401:
        return AuthenticationFailed(text, hint=where.key_hint, **common)
    if status == 402:
        return PermissionDenied(text, hint="The account has no credit left: see the provider's billing page.", **common)
    if status in {403, 407}:
        return PermissionDenied(text, hint="The key may not use this model, or a proxy or region rule refuses it.", **common)
    if status in {404, 405, 410}:
        return ModelNotFound(
            text, hint="Check the model's name (%llm_models) and that base_url ends where the API begins (/v1).", **common
        )
    if status == 413:
        return ContextTooLong(text, hint="Send less, or use a model with a larger window.", **common)
    if status >= 500 or status in {408, 409, 425}:
        return ServerFailed(text, retry_after_s=retry_after, **common)
    if status < 400:
        return BadAnswer(text, **common)
    parameter = error.param or _parameter(error.message)
    return BadParameter(
        text, parameter=parameter, hint=f"Change or leave out {parameter}." if parameter else "Change the request.", **common
    )


def _by_content(status: int, error: ErrorObject, text: str, where: Where, common: Mapping[str, Any]) -> AttemptFailed | None:
    """Return the error that the error object names, whatever status came with it; None when it names none."""
    codes = error.codes | ({error.param} if error.param == "input_tokens" else set())
    if codes & _FILTER_CODES:
        return Refused(text, hint="A content filter refused the prompt. Rephrase it, or use another model.", **common)
    if codes & _KEY_CODES:
        return AuthenticationFailed(text, hint=where.key_hint, **common)
    narrow = status in {400, 413, 422, 500}
    if codes & _CONTEXT_CODES or (narrow and _CONTEXT_TEXT.search(error.message)):
        return ContextTooLong(text, hint="Shorten the prompt, lower max_tokens, or use a model with a larger window.", **common)
    wording = status == 400 and _MODEL_TEXT.search(error.message)
    if codes & _MODEL_CODES or (status == 400 and error.param == "model") or wording:
        return ModelNotFound(text, hint="Check the model's name (%llm_models).", **common)
    if status == 400 and _KEY_TEXT.search(error.message):
        return AuthenticationFailed(text, hint=where.key_hint, **common)
    return None


def _parameter(message: str) -> str | None:
    for pattern in _PARAMETER_TEXT:
        match = pattern.search(message)
        if match:
            return match[1]
    return None


def shorten(text: str, secrets: Sequence[str] = ()) -> str:
    """Return a provider's message on one line of at most 300 characters, without any eight characters in a row of a secret."""
    for secret in secrets:
        text = text.replace(secret, "[redacted]")
        for start in range(len(secret) - 7):
            text = text.replace(secret[start : start + 8], "[redacted]")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
