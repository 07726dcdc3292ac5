"""Request -> canonical JSON -> sha256: the name under which an answer is kept.

Every field of Chat and Embed is in, and so are the model and the endpoint's identity; Options are out as a whole. A new
field of Chat or Embed is in by itself, because the fields are enumerated, not listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from nbllm.core.json_text import encode_text, only_text
from nbllm.core.messages import Chat, Content, Embed, Rung

KEY_VERSION = 1
"""Part of every key: raise it when an answer kept under an old key may no longer be served."""

_KINDS: dict[type, tuple[str, tuple[str, ...]]] = {
    Chat: ("chat", Chat.__struct_fields__),
    Embed: ("embed", Embed.__struct_fields__),
}
_IN_ORDER = frozenset({"tools", "response_format", "json_schema", "extra"})
"""Fields that hold schemas: models write an answer's fields in the order in which its schema names them, so order counts there."""
_EMPTY: dict[type, str] = {dict: "{}", tuple: "[]", list: "[]"}
_encode = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_encode_in_order = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a JSON-able value: keys sorted, no spaces, ASCII.

    Raises ValueError for NaN, TypeError for what is no JSON.
    """
    return _encode(value)


def fingerprint(content: Content, rung: Rung) -> str:
    """Return the cache key of a request on a rung, 64 hex digits.

    A field that is None is left out, so that a new optional field does not change the keys of requests that do not use it.
    """
    if type(content) is Chat and _is_bare(content):
        return sha256(_text(_bare_parts(content, rung), simple=True)).hexdigest()
    kind, names = _KINDS[type(content)]
    parts: dict[str, Any] = {"": KEY_VERSION, "kind": kind, "model": rung.model, "endpoint": rung.identity}
    simple = type(content) is Chat and not content.extra and only_text(content.messages)
    for name in names:
        value = getattr(content, name)
        if value is None:
            continue
        if name in _IN_ORDER:
            simple = simple and not value
            value = _encode_in_order(value) if value else _EMPTY[type(value)]
        parts["." + name] = value
    return sha256(_text(parts, simple=simple)).hexdigest()


def _is_bare(content: Chat) -> bool:
    """Whether there is nothing but messages of text: most hits are, and what a hit costs is mostly its key and its row."""
    return (
        content.temperature is None
        and content.max_tokens is None
        and content.json_schema is None
        and content.seed is None
        and content.top_p is None
        and content.stop is None
        and content.tools is None
        and content.response_format is None
        and content.logprobs is None
        and not content.extra
        and only_text(content.messages)
    )


def _bare_parts(content: Chat, rung: Rung) -> dict[str, Any]:
    """Return what the loop over all fields would; a test holds the two together for every field."""
    return {
        "": KEY_VERSION,
        "kind": "chat",
        "model": rung.model,
        "endpoint": rung.identity,
        ".messages": content.messages,
        ".extra": "{}",
        ".sample": content.sample,
        ".partition": content.partition,
    }


def _text(parts: Mapping[str, Any], *, simple: bool) -> bytes:
    """Return the one JSON text of the parts; simple: nothing in it is a user's own structure, so the quick way is safe."""
    if simple:
        with suppress(UnicodeEncodeError, TypeError):  # half of a surrogate pair; a class of the user's own, of str, say
            return encode_text(parts)
    return canonical_json(parts).encode("ascii")
