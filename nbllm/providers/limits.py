"""What response headers say about waiting: Retry-After and the x-ratelimit family. Nonsense is None, never an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from nbllm.core.ports import RateLimits

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_LONGEST_S = 366 * 86_400.0


def retry_after_s(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    """Return how many seconds the provider asks to wait: `retry-after-ms` (OpenAI), else Retry-After in seconds or as an HTTP date.

    A date in the past is 0. None when there is no header, or nonsense in it (negative, NaN, longer than a year, no date).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _sane(milliseconds / 1000)
    text = (headers.get("Retry-After") or "").strip()
    if not text:
        return None
    seconds = _number(text)
    if seconds is not None:
        return _sane(seconds)
    try:
        when = parsedate_to_datetime(text)
        return _sane(max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_unix_s))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def rate_limits(headers: Mapping[str, str], now_unix_s: float) -> RateLimits | None:
    """Return what the headers say of the limits, None when they say nothing.

    Read: x-ratelimit-{limit,remaining,reset}-{requests,tokens} (OpenAI, Groq), the same with -minute (Cerebras), and without a
    kind (OpenRouter: requests). A reset is a duration ("6m0s", "120ms"), seconds, or a Unix time in seconds or milliseconds.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        if name[:12].lower() == "x-ratelimit-":
            found[name[12:].lower()] = value
    if not found:
        return None
    limits = RateLimits(
        requests_limit=_count(_pick(found, "limit", "requests")),
        requests_left=_count(_pick(found, "remaining", "requests")),
        requests_reset_s=_reset_s(_pick(found, "reset", "requests"), now_unix_s),
        tokens_limit=_count(_pick(found, "limit", "tokens")),
        tokens_left=_count(_pick(found, "remaining", "tokens")),
        tokens_reset_s=_reset_s(_pick(found, "reset", "tokens"), now_unix_s),
    )
    return None if limits == RateLimits() else limits


def _pick(found: Mapping[str, str], what: str, kind: str) -> str | None:
    bare = found.get(what) if kind == "requests" else None
    return found.get(f"{what}-{kind}") or found.get(f"{what}-{kind}-minute") or bare


def _count(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and 0 <= number < 2**53 else None


def _reset_s(text: str | None, now_unix_s: float) -> float | None:
    if text is None:
        return None
    number = _number(text)
    if number is not None:
        if number > 1e12:
            number = number / 1000 - now_unix_s
        elif number > 1e9:
            number -= now_unix_s
        return _sane(max(0.0, number)) if number > -60 else None
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return _sane(days * 86_400 + hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


def _number(text: str | None) -> float | None:
    # float() also reads "nan", "inf" and "1_0", and digits of other scripts: none of them is a number in a header.
    if text is None or not re.fullmatch(r"\s*[+-]?\d{1,18}(\.\d{1,9})?\s*", text, re.ASCII):
        return None
    return float(text)


def _sane(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _LONGEST_S else None
