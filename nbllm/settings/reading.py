"""How the text after a flag becomes a value: names, durations, amounts, key=value, and the call options' own rules."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from nbllm.settings.option import BadValue, money
from nbllm.settings.tables import CALL_OPTIONS

_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration_s(text: str) -> float:
    """Return seconds for `30`, `30s`, `10m`, `1.5h`, `7d` or `2w`; raises BadValue."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", text.strip().casefold())
    if match is None or match.group(2) not in _UNITS_S:
        raise BadValue("a length of time is a number with s, m, h, d or w", hint="For example 30s, 10m or 1.5h.")
    return float(match.group(1)) * _UNITS_S[match.group(2)]


def option(name: str) -> Callable[[str], Any]:
    """Return the reader of a call option; seconds may carry a unit."""
    known = CALL_OPTIONS[name]

    def read(text: str) -> Any:
        if name.endswith("_s") and re.fullmatch(r"[\d.]+\s*[a-zA-Z]+", text.strip()):
            return known.value(duration_s(text))
        return known.parse(text)

    return read


def identifier(text: str) -> str:
    """Return a name that a variable can have; raises BadValue for others and for keywords."""
    if keyword.iskeyword(text):
        raise BadValue(f"{text!r} is a keyword of Python and cannot name a variable")
    if not text.isidentifier():
        better = re.sub(r"\W+", "_", text).strip("_")
        hint = f"For example -o {better}." if better.isidentifier() and not keyword.iskeyword(better) else ""
        raise BadValue(f"{text!r} cannot name a variable", hint=hint)
    return text


def dotted_name(text: str) -> str:
    """Return the name of something in the notebook, dots allowed; raises BadValue."""
    if not all(part.isidentifier() for part in text.split(".")):
        raise BadValue(f"{text!r} is no name of something in this notebook", hint="Define it in a cell and give its name.")
    return text


def pair(text: str) -> tuple[str, Any]:
    """Return (key, value) of `key=value`. The value is JSON where it reads as JSON, else text; raises BadValue."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadValue("it takes key=value", hint="For example --set top_p=0.9.")
    try:
        return key.strip(), json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return key.strip(), value


def _no_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON: they stay text


def usd(text: str) -> Decimal:
    """Return an amount in USD, `5`, `5.00` or `$5`; raises BadValue."""
    return money("the amount", text)


def usd_or_off(text: str) -> Decimal | None:
    """Return an amount in USD, or None for `off`; raises BadValue."""
    return None if text.strip().casefold() in {"off", "none"} else usd(text)


def amount_or_share(text: str) -> Decimal | float:
    """Return a share (float, 0 to 1) for `80%`, an amount in USD (Decimal) for anything else; raises BadValue."""
    if not text.strip().endswith("%"):
        return usd(text)
    try:
        share = float(text.strip()[:-1]) / 100
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise BadValue("a share is above 0% and at most 100%")
    return share


def share(text: str) -> float:
    """Return a share, above 0 and at most 1, of `80%` or `0.8`; raises BadValue."""
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise BadValue("a share is above 0% and at most 100%", hint="For example 80%.")
    return value


def positive(text: str) -> float:
    """Return a number above 0; raises BadValue."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise BadValue("a number above 0 is needed")
    return value


def since_s(text: str) -> float | str:
    """Return how long ago in seconds, or "today" or "all"; raises BadValue."""
    word = text.strip().casefold()
    if word in {"today", "all"}:
        return word
    try:
        return duration_s(word)
    except BadValue as error:
        raise BadValue(error.problem, hint="For example 30s, 10m or 1.5h; or today, or all.") from None


def unix_since(since: float | str | None, now: float) -> float | None:
    """Return the Unix time in seconds from which on calls count: now minus a length, midnight UTC for "today", None for all."""
    if since is None or since == "all":
        return None
    if since == "today":
        day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return day.timestamp()
    return now - float(since)


def count(text: str) -> int:
    """Return a number of rows, 1 to 10,000; raises BadValue."""
    if not text.isdigit() or not 1 <= int(text[:6]) <= 10_000:
        raise BadValue("a number of rows is 1 to 10000")
    return int(text)
