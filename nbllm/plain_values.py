"""Values that can be sent: texts without what no server takes, and deep copies as plain JSON. InvalidRequest names what is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nbllm.errors import InvalidRequest, UnusableText


def check_text(text: str, where: str) -> None:
    """Refuse what cannot be sent as UTF-8 (lone surrogates) and what servers choke on (NUL); names the place."""
    nul = text.find("\0")
    if nul >= 0:
        raise UnusableText(
            f"The {where} holds a NUL character at position {nul}.", hint='Remove it, for example with text.replace("\\0", "").'
        )
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise UnusableText(
            f"The {where} holds a lone surrogate (U+{ord(text[exc.start]):04X}) at position {exc.start}, which is no text.",
            hint='Was it read with errors="surrogateescape"? Decode it properly, or use text.encode("utf-8", "replace").decode().',
        ) from None


def checked(value: Any, where: str) -> Any:
    """Return the value; refuses text in it that cannot be sent."""
    if isinstance(value, str):
        check_text(value, where)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            checked(name, where)
            checked(part, where)
    elif isinstance(value, (list, tuple)):
        for part in value:
            checked(part, where)
    return value


def plain(value: Any, where: str, part: str = "") -> Any:
    """Return a deep copy as plain JSON values. Raises InvalidRequest for what is none. part: how an item of a list is called."""
    try:
        if part:
            for number, item in enumerate(value):
                checked(item, part.format(number))
        else:
            checked(value, where)
        # In its own order: models write fields in the order in which a schema names them.
        return json.loads(json.dumps(_dicts(value), allow_nan=False))
    except RecursionError:
        raise InvalidRequest(f"{where} is nested too deeply, or holds itself. Nothing was sent.", hint="Flatten it.") from None
    except (TypeError, ValueError) as exc:
        if isinstance(exc, InvalidRequest):
            raise
        raise InvalidRequest(
            f"{where} cannot be sent as JSON: {exc}. Nothing was sent.",
            hint="It may hold text, finite numbers, booleans, None, lists and dicts with text keys.",
        ) from None


def _dicts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _dicts(item) for key, item in value.items()}
    return [_dicts(item) for item in value] if isinstance(value, (list, tuple)) else value
