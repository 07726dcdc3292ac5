"""Endpoint: one place that serves models, checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from nbllm.errors import ConfigurationError
from nbllm.redaction import is_secret_name, register_secret
from nbllm.settings.option import BadValue, money, shown

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")


def header_variable(value: str) -> str | None:
    """Return the environment variable that a header's value "$NAME" names, None for a value that is meant as it stands."""
    return value[1:] if value.startswith("$") and ENV_NAME.match(value[1:]) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place that serves models in OpenAI's shape. Raises ConfigurationError when a field makes no sense.

    base_url: up to and including /v1. api_key_env: name of the environment variable that holds the key. api_key: the key itself,
    for code only; never shown, never written to a file, never exported. headers: sent with each request; a value "$NAME" is read
    from that environment variable when a request is sent, and not sent while it is unset. Prices are USD per million tokens. rpm,
    tpm: requests and tokens a minute; max_concurrency: calls at once; context_tokens: the window. identity: what stands for this
    endpoint in cache keys; by default its normalised base_url, its headers without secrets and "$NAME"s, and json_mode if set: two
    endpoints that only a key tells apart need one each if they answer differently. json_mode: where a model is told the schema of
    `schema=`. True: in response_format. False: in the prompt. None: in response_format, and in the prompt from the first time that
    it is refused. supports_logprobs: whether it gives log probabilities of tokens; False: a cascade that needs them is
    refused where it is set. settings_file: where in which file it stands ("nbllm.toml:12"), "" for one made in code; set by who
    reads the file, because a file may come from anybody (providers/hosts.py).
    """

    base_url: str = ""
    api_key_env: str | None = None
    api_key: str | None = field(default=None, repr=False, compare=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False, hash=False)
    input_usd_per_mtok: Decimal | float | None = None
    output_usd_per_mtok: Decimal | float | None = None
    cached_input_usd_per_mtok: Decimal | float | None = None
    rpm: int | None = None
    tpm: int | None = None
    max_concurrency: int | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    identity: str | None = None
    json_mode: bool | None = None
    supports_logprobs: bool | None = None
    verify_tls: bool = True
    settings_file: str = field(default="", init=False, repr=False, compare=False)

    if not TYPE_CHECKING:  # a checker knows the fields; who mistypes one at run time is told which one was meant

        def __new__(cls, *args: object, **values: object) -> Self:
            """Refuse what is no field with the nearest one."""
            from nbllm.settings.suggest import did_you_mean

            for name in (*map(repr, args), *(name for name in values if name not in FIELDS)):
                meant = _MEANT.get(name)
                hint = f"Did you mean {meant}?" if meant else did_you_mean(name, FIELDS, limit=20)
                raise ConfigurationError(f"Endpoint: there is no field {name}; fields are given by name.", hint=hint)
            return object.__new__(cls)

    def __post_init__(self) -> None:
        """Check and normalise every field."""
        try:
            _check(self)
        except BadValue as error:
            raise ConfigurationError(f"Endpoint: {error.problem}.", hint=error.hint) from None


_MEANT = {"url": "base_url", "api_base": "base_url", "key": "api_key_env", "token": "api_key_env", "key_env": "api_key_env"}
FIELDS = tuple(f.name for f in fields(Endpoint) if f.init)


def endpoint_from(values: Mapping[str, Any]) -> Endpoint:
    """Return the Endpoint of a table of a settings file; raises BadValue whose path names the field."""
    from nbllm.settings.suggest import did_you_mean

    for name, value in values.items():
        if name in {"api_key", "key", "token", "api_token", "secret"}:
            raise BadValue(
                f"{name} holds a key; settings hold names of environment variables, never keys",
                hint='Put the key into an environment variable and write api_key_env = "NAME_OF_THE_VARIABLE".',
                path=(name,),
            )
        if name not in FIELDS:
            raise BadValue(f"an endpoint has no field {name!r}", hint=did_you_mean(name, FIELDS, limit=20), path=(name,))
        _check_field(name, value)
    if not values.get("base_url"):
        raise BadValue("base_url is missing", hint='Write base_url = "http://host:port/v1".')
    return Endpoint(**values)


def _check(endpoint: Endpoint) -> None:
    for name in FIELDS:
        object.__setattr__(endpoint, name, _check_field(name, getattr(endpoint, name)))


def _check_field(name: str, value: Any) -> Any:
    """Return the field's value in its normal form; raises BadValue with the field's name as path."""
    if value is None and name not in {"base_url", "verify_tls"}:
        return None
    try:
        return _FIELD_CHECKS[name](name, value)
    except BadValue as error:
        raise BadValue(error.problem, hint=error.hint, path=(name, *error.path)) from None


def _base_url(_: str, url: Any) -> str:
    """Return the URL with scheme and host in lower case and no slash at the end; "" stays "". Raises BadValue."""
    from urllib.parse import urlsplit

    if not isinstance(url, str):
        raise BadValue(f"base_url must be text, not {shown(url)}")
    if not url:
        return ""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise BadValue("base_url holds spaces, control characters, backslashes or characters outside ASCII")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadValue(f"base_url is no URL: {error}") from None
    if "@" in parts.netloc:
        raise BadValue(
            f"base_url holds credentials before the host {host}",
            hint="Name an environment variable in api_key_env, or use headers=.",
        )
    if parts.scheme.lower() not in {"http", "https"} or not host:
        raise BadValue(
            f"base_url must begin with http:// or https:// and name a host, not {shown(url)}",
            hint="For example http://127.0.0.1:8000/v1",
        )
    if "?" in url or "#" in url:
        raise BadValue(
            "base_url must have no query and no fragment", hint="Keys belong into api_key_env, further fields into extra=."
        )
    netloc = f"[{host}]" if ":" in host else host
    default_port = {"http": 80, "https": 443}[parts.scheme.lower()]
    if port is not None and port != default_port:
        netloc += f":{port}"
    return f"{parts.scheme.lower()}://{netloc}{parts.path.rstrip('/')}"


def _key(_: str, value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        raise BadValue("api_key must be text without spaces, line ends or characters outside ASCII")
    register_secret(value)
    return value


def _variable(_: str, value: Any) -> str:
    if not isinstance(value, str) or not ENV_NAME.match(value):
        raise BadValue(
            "api_key_env must be the name of an environment variable (letters, digits, _), and what stands there is none",
            hint='For example api_key_env = "OPENAI_API_KEY". If it was the key itself: put it into a variable and name that.',
        )
    return value


def _headers(_: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise BadValue("headers must map names to texts")
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.match(name):
            raise BadValue(f"{shown(name)} is no name of a header")
        if not isinstance(text, str) or any(c in text for c in "\r\n\0"):
            raise BadValue(f"the header {name} must be text without line ends", path=(name,))
        if is_secret_name(name) and header_variable(text) is None:
            register_secret(text.split(" ")[-1])
    return dict(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
        raise BadValue(f"{name} must be a whole number above 0, not {shown(value)}")
    return value


def _identity(_: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 500 or not value.isprintable():
        raise BadValue("identity must be one line of text, not empty")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValue(f"{name} must be true or false, not {shown(value)}")
    return value


_FIELD_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "base_url": _base_url,
    "api_key_env": _variable,
    "api_key": _key,
    "headers": _headers,
    "identity": _identity,
    **dict.fromkeys(("input_usd_per_mtok", "output_usd_per_mtok", "cached_input_usd_per_mtok"), money),
    **dict.fromkeys(("rpm", "tpm", "max_concurrency", "context_tokens", "max_output_tokens"), _count),
    **dict.fromkeys(("json_mode", "supports_logprobs", "verify_tls"), _flag),
}
