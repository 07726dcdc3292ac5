"""The one way secrets are kept out of anything that leaves: errors, logs, ledger, recordings, notebooks, exported files.

Two nets. Exact: values registered with register_secret are masked wherever they appear, as they are or URL-encoded, JSON-escaped,
HTML-escaped, in hex or base64, in any case. Shapes: what looks like a key (the prefixes of nbllm.redaction.shapes, PEM private
keys, JWTs, URLs with credentials) and what stands behind a name that says so (api_key=, Authorization:, password=).

The trade-off: ordinary text must survive, so what looks like nothing (32 hex digits, a UUID, 40 letters) is masked only behind
such a name or when it was registered; commit hashes, UUIDs, base64 images and words stay. Registered values under 8 characters
are masked only behind a name, because masking "test" everywhere would destroy more than it protects.

This module imports nothing of nbllm and compiles nothing until it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MASK = "[redacted]"
MIN_SECRET_CHARS = 8
_MAX_DEPTH = 60
_MOST_NAMES = 1000

_forms: dict[str, tuple[str, ...]] = {}
"""Registered secret -> its forms in lower case. Replaced, never changed in place: readers in other threads see a whole one."""

_names: dict[str, str] = {}
"""Name -> what is shown of it. A new one begins with each registered secret."""


def register_secret(value: str) -> None:
    """Mask this value from now on, wherever it appears. Short values and well-known placeholders are not registered."""
    global _forms, _names  # noqa: PLW0603  the registry is one per process by purpose: a secret is secret everywhere
    if value in _forms or len(value) < MIN_SECRET_CHARS:
        return
    from nbllm.redaction.find import forms_of, is_placeholder

    if not is_placeholder(value) and value.casefold() not in MASK:
        _forms = {**_forms, value: forms_of(value)}
        _names = {}


def secrets_known() -> int:
    """Return how many values are registered. It only grows: what was redacted under another number may show a secret by now."""
    return len(_forms)


def redact(text: str) -> str:
    """Return text with secrets masked. Idempotent; linear in the length of the text (about 0.1 s per MB at worst)."""
    if len(text) < MIN_SECRET_CHARS // 2:
        return text
    from nbllm.redaction.find import secrets_in

    for _ in range(4):  # what a mask uncovers (a key directly behind another one) is found by the next pass
        spans = secrets_in(text, _forms)
        if not spans:
            break
        text = _masked(text, spans)
    return text


def redact_registered(text: str) -> str:
    """Return a text with registered values masked and all else as it is: for what a model says, where a shape proves nothing.

    A server that echoes a key in its answer must not bring it into a notebook; a model that explains what keys look like may.
    """
    if not _forms or len(text) < MIN_SECRET_CHARS:
        return text
    from nbllm.redaction.find import registered_in

    spans = registered_in(text, _forms)
    return _masked(text, spans) if spans else text


def redact_name(text: str) -> str:
    """Return what `redact` does, remembered: for names that servers give with every answer (models, finish reasons)."""
    names = _names
    found = names.get(text)
    if found is None:
        found = redact(text)
        if len(names) < _MOST_NAMES and len(text) < _MOST_NAMES:
            names[text] = found
    return found


def redact_json(value: Any) -> Any:
    """Return JSON-like data with secrets masked: in texts, in keys, and whole values under names such as api_key.

    Mappings become dicts, sequences lists, bytes text; what is nested deeper than 60 levels becomes text.
    """
    return _redacted(value, 0)


def is_secret_name(name: str) -> bool:
    """Whether a header, field or variable of that name holds a secret by convention."""
    folded = name.casefold().replace("portkey", "")  # a gateway whose headers (x-portkey-provider) route, and hold no key by that
    words = ("key", "token", "secret", "authorization", "password", "passwd", "passphrase", "cookie", "credential")
    return any(word in folded for word in words)


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _MAX_DEPTH:
        return redact(str(value))
    if isinstance(value, Mapping):
        return {redact(k) if isinstance(k, str) else k: _under(k, v, depth) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray):
        return redact(bytes(value).decode("utf-8", "replace"))
    return value


def _under(name: Any, value: Any, depth: int) -> Any:
    """Return a value of a mapping redacted, masked as a whole when its name says that it is a secret."""
    if isinstance(name, str) and isinstance(value, str):
        from nbllm.redaction.find import is_secret_field

        if is_secret_field(name, value):
            return MASK
    return _redacted(value, depth + 1)


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    """Return text with the spans replaced, overlapping ones as one."""
    parts: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if end <= done:
            continue
        if start >= done:
            parts += (text[done:start], MASK)
        done = end
    parts.append(text[done:])
    return "".join(parts)
