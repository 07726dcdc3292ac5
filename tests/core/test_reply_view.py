"""The meter line, and how a reply shows itself."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.messages import Attempt, AttemptStatus, Usage
from nbllm.core.meter_line import cost, meter_line, seconds
from nbllm.core.reply import Reply
from nbllm.core.reply_view import METER_RULE, METER_STYLE, reply_markdown, reply_plain
from tests.core.rendering import page, renderings
from tests.hostile_answers import HOSTILE_ANSWERS


def reply(**changes: Any) -> Reply:
    """Return an ordinary reply with some fields changed."""
    fields: dict[str, Any] = {
        "text": "Hello **you**.", "model": "large", "rung": "sim/large", "source": "model", "finish_reason": "stop",
        "call_id": "c1",
        "usage": Usage(412, 96), "cost_usd": Decimal("0.0012"), "cost_basis": "exact", "ttft_s": 0.31, "latency_s": 1.4529,
        "simulated": True,
    }  # fmt: skip
    return Reply(**{**fields, **changes})


def attempt(number: int, *, sent: bool = True) -> Attempt:
    """Return a closed attempt."""
    return Attempt(
        attempt_id=f"a{number}", call_id="c1", number=number, rung="sim/large", endpoint="sim", model="large", started_at=0.0,
        sent=sent,
        status=AttemptStatus.DONE, ttft_s=0.31, latency_s=1.4529,
    )  # fmt: skip


def test_the_line_reads_as_designed() -> None:
    """Label, tokens, first token, pace, cost, cache and session, in this order, each with its unit."""
    line = meter_line(reply(), session_usd=Decimal("0.43"), session_limit_usd=Decimal(5))
    assert line == (
        "sim/large (simulated) · 412 in · 96 out · first token 0.31 s · 84 tok/s · $0.0012 · cache miss · session $0.43 of $5.00"
    )


@pytest.mark.parametrize(
    ("changes", "has", "lacks"),
    [
        ({"source": "cache", "saved_usd": Decimal("0.0012"), "saved_s": 1.9, "cost_usd": Decimal(0)},
        "cache hit, saved $0.0012 and 1.9 s", "tok/s"),
        ({"source": "cache", "cost_usd": Decimal(0)}, "cache hit", "saved"),
        ({"source": "semantic", "saved_s": 2.0}, "similar question in the cache, saved 2.0 s", "cache hit"),
        ({"source": "stale", "age_s": 7300.0}, "stale answer from the cache (2 h old)", "cache miss"),
        ({"source": "static", "usage": Usage(), "cost_usd": Decimal(0)}, "static answer: no model answered", "tokens"),
        ({"cost_usd": None, "cost_basis": "unknown"}, "cost unknown", "$"),
        ({"cost_basis": "estimated"}, "~$0.0012 (estimated)", "unknown"),
        ({"ttft_s": None}, "whole answer in 1.5 s", "first token"),
        ({"usage": Usage()}, "tokens unknown", "0 in"),
        ({"usage": Usage(None, 5)}, "input tokens unknown · 5 out", "0 in"),
        ({"usage": Usage(412, 96, None, None, True)}, "~412 in · ~96 out", " 96 out"),
        ({"usage": Usage(4120, 96, 40, 1000)}, "4,120 in (1,000 cached by the provider) · 96 out (40 thinking)", "~"),
        ({"interrupted": True}, "stopped: this is a part of the answer", "cache miss"),
        ({"finish_reason": "length"}, "truncated: the limit on tokens cut it", "stopped"),
        ({"coalesced": True, "cost_usd": Decimal(0)}, "$0.00 · shared with an identical call", "cache miss"),
        ({"repairs": 1, "attempts": (attempt(1), attempt(2))}, "1 repair", "failed"),
        ({"attempts": (attempt(1), attempt(2), attempt(3, sent=False))}, "1 failed attempt", "2 failed"),
        ({"simulated": False, "rung": "lab/x"}, "lab/x · ", "simulated"),
    ],
)  # fmt: skip
def test_what_a_reader_must_know_is_said(changes: dict[str, Any], has: str, lacks: str) -> None:
    """Unknown, estimated, stored, shared, cut and stopped are words, and nothing unknown is a number."""
    line = meter_line(reply(**changes))
    assert has in line
    assert lacks not in line


@given(st.floats(0, 1e5), st.integers(0, 10**7), st.integers(0, 10**7), st.decimals(0, 1000, places=9))
def test_any_numbers_make_one_line(latency_s: float, tokens_in: int, tokens_out: int, usd: Decimal) -> None:
    """No number breaks the line or is shown as nothing when it is something."""
    line = meter_line(reply(latency_s=latency_s, ttft_s=latency_s / 2, usage=Usage(tokens_in, tokens_out), cost_usd=usd))
    assert "\n" not in line
    assert "nan" not in line
    assert (cost(usd, "exact") == "$0.00") is (usd == 0)


def test_times_keep_the_digits_that_mean_something() -> None:
    """A hit's 60 microseconds and an hour are both readable."""
    assert [seconds(s) for s in (0.00006, 0.0042, 0.31, 1.9, 12.34, 3600)] == [
        "0.06 ms",
        "4.2 ms",
        "0.31 s",
        "1.9 s",
        "12.3 s",
        "3,600 s",
    ]


def test_the_answer_comes_first_and_notes_last() -> None:
    """Markdown and plain text both: answer, line, notes."""
    shown = reply(notes=("max_tokens lowered to 300",))
    plain = reply_plain(shown)
    assert plain.startswith("Hello **you**.\n\nsim/large (simulated) · ")
    assert plain.endswith("\nNote: max_tokens lowered to 300")
    html = renderings(reply_markdown(shown))["markdown-it"]
    assert html.index("<strong>you</strong>") < html.index("sim&#47;large") < html.index("lowered")
    assert "mathjax_ignore" in html


@pytest.mark.parametrize("answer", HOSTILE_ANSWERS, ids=range(len(HOSTILE_ANSWERS)))
def test_a_hostile_reply_shows_nothing_alive(answer: str) -> None:
    """Text, notes and names of models are all escaped; the only foreign element is our own line."""
    shown = reply(text=answer, notes=(answer[:60],), rung=answer[:40])
    styles = {f"<div style='{METER_RULE}{METER_STYLE}'>", f"<div style='{METER_STYLE}'>"}
    ours = {"<div class='nbllm-meter mathjax_ignore tex2jax_ignore'>"} | styles
    for html in renderings(reply_markdown(shown)).values():
        assert set(page(html).wrong) <= ours
    reply_plain(shown).encode("utf-8")
    assert "\x1b" not in reply_plain(shown)


def test_tool_calls_vectors_and_nothing_are_shown_too() -> None:
    """A reply without text still says what it is."""
    calls = {"tool_calls": [{"function": {"name": "look", "arguments": '{"a": "`<b>`"}'}}]}
    assert "look(" in reply_plain(reply(text="", message=calls))
    assert "<b>" not in reply_markdown(reply(text="", message=calls))
    assert reply_plain(reply(text="")).startswith("sim/large")

    class Vectors:
        shape = (3, 384)

    assert "3 vectors of 384 dimensions" in reply_plain(reply(text="", vectors=Vectors()))


def test_a_huge_answer_is_shown_in_part() -> None:
    """A browser gets 100,000 characters and a word about the rest."""
    shown = reply_markdown(reply(text="word " * 100_000))
    assert len(shown) < 110_000
    assert "400,000 more characters" in shown
