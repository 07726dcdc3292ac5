"""Retry-After and the x-ratelimit headers."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.ports import RateLimits
from nbllm.providers.limits import rate_limits, retry_after_s

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("3", 3.0),
        (" 2.5 ", 2.5),
        ("0", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        ("Friday, 15-Jan-27 08:01:30 GMT", 90.0),
        ("Fri Jan 15 08:01:30 2027", 90.0),
        ("Fri, 15 Jan 2027 08:01:30 -0000", 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        *(
            (text, None)
            for text in (
                "",
                "soon",
                "-1",
                "nan",
                "inf",
                "1e3",
                "1_0",
                "٣",
                "12, 13",
                "9" * 400,
                "99999999999",
                "Foo, 99 Bar 2099 99:99:99 GMT",
            )
        ),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_none(text: str, wait_s: float | None) -> None:
    """Seconds, all HTTP dates, dates in the past as 0; anything else is as if the header were not there."""
    assert retry_after_s({"Retry-After": text}, NOW) == wait_s


def test_milliseconds_are_more_exact() -> None:
    """OpenAI's retry-after-ms wins over whole seconds."""
    assert retry_after_s({"retry-after-ms": "1500", "Retry-After": "2"}, NOW) == 1.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0), ("1s", 1.0), ("20ms", 0.02), ("2m59.56s", 179.56), ("1h2m3s", 3723.0), ("1d", 86400.0), ("7.5", 7.5),
        (str(int(NOW + 30)), 30.0), (str(int((NOW + 30) * 1000)), 30.0), ("soon", None), ("", None), ("s", None), ("-5m", None),
    ],
)  # fmt: skip
def test_a_reset_is_a_duration_seconds_or_a_time(text: str, seconds: float | None) -> None:
    """The formats of OpenAI, Groq, Cerebras and OpenRouter mean seconds from now; nonsense is None."""
    limits = rate_limits({"x-ratelimit-limit-requests": "1", "X-RateLimit-Reset-Requests": text}, NOW)
    assert limits is not None
    assert limits.requests_reset_s == (pytest.approx(seconds) if seconds is not None else None)


def test_all_six_numbers_are_read() -> None:
    """Requests and tokens: limit, left and reset, in any case of letters; none of them is None."""
    names = {"Limit-Requests": "60", "Remaining-Requests": "59", "Reset-Requests": "1s"}
    names |= {"Limit-Tokens": "90000", "Remaining-Tokens": "0", "Reset-Tokens": "6ms"}
    headers = {f"X-RateLimit-{name}": value for name, value in names.items()}
    assert rate_limits(headers, NOW) == RateLimits(
        requests_limit=60, requests_left=59, requests_reset_s=1.0, tokens_limit=90000, tokens_left=0, tokens_reset_s=0.006
    )
    assert rate_limits({"x-ratelimit-limit": "20", "x-ratelimit-remaining-tokens-minute": "3"}, NOW) == RateLimits(
        requests_limit=20, tokens_left=3
    )
    assert rate_limits({"Content-Type": "x"}, NOW) is None
    assert rate_limits({"x-ratelimit-limit-requests": "many"}, NOW) is None


@given(st.integers(0, 10**7))
def test_an_http_date_is_the_same_moment(ahead_s: int) -> None:
    """A date so many seconds ahead is read as so many seconds."""
    assert retry_after_s({"Retry-After": formatdate(NOW + ahead_s, usegmt=True)}, NOW) == ahead_s


@given(value=st.text(max_size=30))
def test_no_header_raises(value: str) -> None:
    """Whatever stands in a header, the worst that happens is None; a wait is never negative."""
    wait_s = retry_after_s({"Retry-After": value}, NOW)
    assert wait_s is None or wait_s >= 0
    for what in ("limit", "remaining", "reset"):
        rate_limits({f"x-ratelimit-{what}-requests": value}, NOW)
