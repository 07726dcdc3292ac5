"""JSON to values and back, quickly where that is safe: the common shapes by msgspec, everything else by the standard library.

The two differ at the edges: msgspec writes NaN as null and takes dates and bytes for text, and it refuses NaN and lone surrogates,
which some servers send. So it writes only what is known to hold neither, and what it cannot read the standard library reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from nbllm.core.messages import Message

_decode = msgspec.json.Decoder().decode
_slow_decode = json.JSONDecoder().decode
encode_text = msgspec.json.Encoder(order="deterministic").encode
"""Write texts, whole numbers, finite floats and lists and dicts of them; keys are sorted. Raises UnicodeEncodeError."""
encode_text_in_order = msgspec.json.Encoder().encode
"""The same, with keys as they come."""


def loads(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError, RecursionError for one that is nested too deep."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeError):
        return _slow_decode(data) if isinstance(data, str) else json.loads(data)


def only_text(messages: Sequence[Message]) -> bool:
    """Whether messages hold a role and a text each, and nothing else."""
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return False
        if type(message.get("content")) is not str or type(message.get("role")) is not str:
            return False
    return True
