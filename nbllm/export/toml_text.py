"""Values as TOML: texts that nothing in them can end, numbers, lists, inline tables."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def key(*parts: str) -> str:
    """Return a dotted key, its parts quoted where they have to be."""
    return ".".join(part if _BARE.match(part) else _text(part) for part in parts)


def value(given: Any) -> str:
    """Return a value on one line. Money (Decimal) is written as a number. Raises ValueError for what TOML has no form for."""
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, Decimal):
        return f"{given:f}"
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError(f"{given} is no number that TOML should hold")
    if isinstance(given, int | float):
        return repr(given)
    if isinstance(given, str):
        return _text(given)
    if isinstance(given, Mapping):
        return "{ " + ", ".join(f"{key(str(name))} = {value(item)}" for name, item in given.items()) + " }" if given else "{}"
    if isinstance(given, list | tuple):
        return "[" + ", ".join(value(item) for item in given) + "]"
    raise ValueError(f"{type(given).__name__} has no form in TOML")


def _text(text: str) -> str:
    """Return a basic string: JSON's escapes are TOML's, apart from DEL, which TOML wants escaped too."""
    shown = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if tomllib.loads(f"x = {shown}")["x"] != text:
        raise AssertionError(f"A text does not read back as it was written: {shown[:80]}")
    return shown
