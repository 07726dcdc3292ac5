"""A stored answer as bytes and back: a version, a checksum over key and content, JSON. No pickle anywhere."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from nbllm.core.json_text import encode_text_in_order, loads
from nbllm.core.ports import Stored

VERSION = b"\x01"
_HEAD = len(VERSION) + 4
_SIMPLE = frozenset({"text", "finish_reason", "model", "reasoning", "usage", "repairs"})
"""What an answer of text alone is made of. Others may hold NaN, among logprobs, or whatever else a provider sent."""


class Damaged(Exception):
    """The bytes are not what was stored under that key."""


def encode(entry: Stored) -> bytes:
    """Return the bytes of an entry. Raises TypeError or ValueError for an answer that is no JSON."""
    values = [
        entry.model,
        entry.created_at,
        entry.expires_at,
        None if entry.cost_usd is None else str(entry.cost_usd),
        entry.latency_s,
        entry.ttft_s,
        entry.tags,
        entry.answer,
    ]
    body = _text(values) if entry.answer.keys() <= _SIMPLE else _any(values)
    return VERSION + _checksum(entry.key, body) + body


def _text(values: list[Any]) -> bytes:
    try:
        return encode_text_in_order(values)
    except (UnicodeEncodeError, TypeError):  # half of a surrogate pair, as some models send it
        return _any(values)


def _any(values: list[Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def decode(key: str, value: object) -> Stored:
    """Return the entry that was stored under `key`. Raises Damaged for anything else, an entry of another key included."""
    if type(value) is not bytes or value[:1] != VERSION:
        raise Damaged
    body = value[_HEAD:]
    if value[1:_HEAD] != _checksum(key, body):
        raise Damaged
    try:
        model, created_at, expires_at, cost, latency_s, ttft_s, tags, answer = loads(body)
        return Stored(
            key=key,
            model=model,
            created_at=created_at,
            expires_at=expires_at,
            answer=answer,
            cost_usd=None if cost is None else Decimal(cost),
            latency_s=latency_s,
            ttft_s=ttft_s,
            tags=tuple(tags),
            size_bytes=len(value),
        )
    except (ValueError, TypeError, ArithmeticError) as exc:
        raise Damaged from exc


def label(model: str, tags: Iterable[str]) -> str:
    """Return the text by which entries are found: each name on a line of its own, model and tags apart."""
    return "\n".join(["", model_line(model), *(tag_line(tag) for tag in tags), ""])


def model_line(model: str) -> str:
    """Return the line of a model."""
    return "m:" + _one_line(model)


def tag_line(tag: str) -> str:
    """Return the line of a tag."""
    return "t:" + _one_line(tag)


def _one_line(name: str) -> str:
    return json.dumps(name)


def _checksum(key: str, body: bytes) -> bytes:
    # CRC-32 finds every burst of up to 32 bits and all but one in 4e9 of the rest: it is against decay, not against an enemy.
    return zlib.crc32(body, zlib.crc32(key.encode("utf-8", "surrogatepass"))).to_bytes(4, "little")
