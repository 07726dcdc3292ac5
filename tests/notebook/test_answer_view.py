"""An answer with its meter as one display."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.messages import Delta
from nbllm.core.reply_view import wrapped
from nbllm.notebook.answer_view import bundle, fenced, meter_html, tool_calls_text
from nbllm.notebook.progress import Progress
from nbllm.notebook.safe_text import SHOWN_CHARS, clipped, plain
from tests.notebook.fakes import attempt, reply

LINE = "sim/large (simulated) · 412 in · 96 out · first token 0.31 s · 84 tok/s · $0.0012 · cache miss · session $0.43 of $5.00"


def test_the_meter_is_one_status_without_a_dollar_that_could_open_a_formula() -> None:
    """role=status, escaped, prices as entities, and out of MathJax's reach."""
    shown = meter_html("a <b> $1", ["costs $2"])
    assert shown.count('role="status"') == 1
    assert "$" not in shown
    assert "mathjax_ignore" in shown
    assert "<b>" not in shown
    assert "aria-live" not in shown


def test_the_running_meter_is_not_read_out() -> None:
    """Ten changes a second would drown a screen reader; the token stream itself is never live."""
    shown = bundle("text", LINE, running=True)["text/markdown"]
    assert re.findall(r"aria-live=\S+", shown) == ['aria-live="off"']


def test_plain_text_is_always_there_and_its_meter_fits_80_columns() -> None:
    """What a terminal, nbclient or a diff shows: the answer, then the meter, wrapped between its parts."""
    text = bundle("Hello.", LINE, ["a" * 70 + " and more words that do not fit"])["text/plain"]
    assert text.startswith("Hello.\n\nsim/large (simulated) ·")
    assert max(map(len, text.splitlines())) <= 80
    assert "first token 0.31 s" in text
    assert wrapped(LINE).replace("\n", " ") == LINE


@pytest.mark.parametrize("text", ["```python\nx = 1", "~~~~\n```\nx", "- a\n  ```\n  x", "$$ x + ", "| a | b", "> quoted"])
def test_a_half_written_answer_does_not_swallow_the_meter(text: str) -> None:
    """While it streams, an open code block ends before the meter, which stands at the margin after a blank line."""
    body, _, meter = bundle(text, LINE)["text/markdown"].rpartition("\n\n")
    assert meter.startswith('<div role="status"')
    opened = re.search(r"^(`{3,})", body, re.MULTILINE)
    assert opened is None or body.splitlines()[-1] == opened.group()


@given(st.text(alphabet="`~ \nab", max_size=60))
def test_a_code_block_holds_whatever_is_in_it(text: str) -> None:
    """The fence is longer than any run of backticks within."""
    block = fenced(text, "json")
    fence = re.match(r"`+", block)
    assert fence is not None
    assert fence.group() not in text
    assert block.endswith("\n" + fence.group())


@given(st.text(max_size=200))
def test_plain_text_steers_no_terminal_and_can_be_sent(text: str) -> None:
    """No control character but newline and tab is left, and it encodes as UTF-8."""
    shown = plain(text)
    assert not [c for c in shown if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    shown.encode()


def test_a_huge_answer_is_shown_in_part_and_says_so() -> None:
    """8 MB of text do not go to the browser; how much is missing is said."""
    shown = clipped("x" * 8_000_000)
    assert len(shown) < SHOWN_CHARS + 200
    assert "7,900,000 more characters are not shown" in shown


def test_an_answer_for_a_schema_is_shown_as_code() -> None:
    """JSON is not Markdown: underscores and stars in it stay what they are."""
    shown = bundle('{"a_b_c": "*x*"}', LINE, language="json")["text/markdown"]
    assert shown.startswith('```json\n{"a_b_c": "*x*"}\n```\n\n<div role="status"')


def test_tool_calls_are_shown_when_there_is_no_text() -> None:
    """A reply that only calls a tool says which and with what."""
    message = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"x": 1}'}}]}
    assert "look_up" in tool_calls_text(message)
    assert tool_calls_text({"content": "hi"}) == ""


def test_no_line_of_a_meter_begins_with_a_dot() -> None:
    """Where a narrow window breaks the line, the dot stays with the part before it; so it does under a Reply."""
    for shown in (unescape(meter_html(LINE)), unescape(reply()._repr_markdown_())):
        assert "\u00a0· " in shown
        assert " ·" not in shown


def test_the_running_line_times_the_attempt_that_answers() -> None:
    """A second spent on a failed attempt is not the next one's time to the first token: the final line does not count it either."""
    progress = Progress("sim/large", 0.0)
    progress.started(attempt(1), 0.0)
    progress.started(attempt(2), 1.1)
    progress.delta(Delta(text="Hi"), 1.5)
    assert "first token ~0.4 s" in progress.line(1.6)
