"""What is sent to the JupyterLab extension, bounded: names that can do no harm there, numbers that JavaScript can hold."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from nbllm.core.reply import Reply
from nbllm.notebook.safe_text import plain
from nbllm.redaction import redact, secrets_known

MOST_NAME_CHARS = 200
_MOST_COUNT = 2**53 - 1
_MOST_S = 1e9
_MOST_USD = Decimal(10) ** 15 - 1
_PICO = Decimal("1e-12")
_TAG = re.compile("[0-9a-f]{16}")
_TURNS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of writing: a name with one could show itself, and what stands around it, reversed."""


def name(text: str, most_chars: int = MOST_NAME_CHARS) -> str:
    """Return a name on one line, without what looks like a key and without control characters, cut to most_chars."""
    # Cut before, too: what users give as a name may be a book. A key at the cut is shorter than it was, not shown whole.
    text = text[: most_chars * 20]
    return _remembered(text, most_chars, secrets_known()) if len(text) <= MOST_NAME_CHARS else _shown(text, most_chars)


def _shown(text: str, most_chars: int) -> str:
    shown = " ".join(_TURNS.sub("", plain(redact(text))).split())
    return shown if len(shown) <= most_chars else f"{shown[: most_chars - 1]}…"


@lru_cache(maxsize=2048)
def _remembered(text: str, most_chars: int, _: int) -> str:
    """Return the same; made anew once more secrets are known, because the name may hold one."""
    return _shown(text, most_chars)


def name_or_none(text: str | None) -> str | None:
    """Return the same, None for None."""
    return None if text is None else name(text)


def tag_or_none(text: str | None) -> str | None:
    """Return a notebook's tag, None for what is none."""
    return text if text is not None and _TAG.fullmatch(text) else None


def money(usd: Decimal | None) -> str | None:
    """Return an amount in USD as a decimal number, to the picodollar; None for what is unknown or no amount."""
    if usd is None:
        return None
    try:
        if not usd.is_finite() or usd < 0:
            return None
        text = format(min(usd, _MOST_USD).quantize(_PICO), "f")
    except InvalidOperation:
        return None
    return text.rstrip("0").rstrip(".")


def seconds(value: float | None) -> float | None:
    """Return a duration, to the microsecond, between 0 and some thirty years; None for what is none."""
    if value is None or not math.isfinite(value):
        return None
    return round(min(max(value, 0.0), _MOST_S), 6)


def count(value: int | None) -> int | None:
    """Return a count; None for None."""
    return None if value is None else min(max(value, 0), _MOST_COUNT)


def badge(reply: Reply) -> dict[str, Any] | None:
    """Return what an output's own metadata say of the answer in it: no text, no key; None where there is no call to speak of.

    That is a call without an id, and one that was broken off before it asked any model: it came from nowhere and cost nothing.
    """
    if not reply.call_id or (reply.interrupted and not reply.rung):
        return None
    return {
        "v": 1,
        "model": name(reply.rung),
        "cost_usd": money(reply.cost_usd),
        "source": reply.source,
        "call_id": name(reply.call_id, 64),
    }
