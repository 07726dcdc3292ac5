"""An answer and its meter as one display: Markdown for notebooks, plain text for everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbllm.core.reply_view import METER_RULE, METER_STYLE, meter_row_html, wrapped
from nbllm.core.safe_markdown import safe_markdown
from nbllm.notebook.safe_text import clipped, plain

# The $ of a price must not open a formula: JupyterLab's MathJax skips elements of class mathjax_ignore, others tex2jax_ignore.


def meter_html(line: str, notes: Sequence[str] = (), *, running: bool = False, below: bool = True) -> str:
    """Return the meter as HTML: our own words and numbers, escaped, in one element of role "status".

    below: whether an answer stands above it; a rule then sets it apart. While it runs it is not read out (aria-live off): ten
    changes a second would drown everything else.
    """
    rows = [line, *(f"Note: {note}" for note in notes)]
    body = "<br>".join(meter_row_html(row) for row in rows)
    live = ' aria-live="off"' if running else ""
    style = METER_RULE + METER_STYLE if below else METER_STYLE
    return f'<div role="status"{live} class="nbllm-meter mathjax_ignore tex2jax_ignore" style="{style}">{body}</div>'


def fenced(text: str, language: str) -> str:
    """Return text as a code block whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def body_markdown(text: str, *, language: str = "") -> str:
    """Return the answer as safe Markdown; as a code block when it is written in a language such as JSON."""
    shown = clipped(text)
    if language:
        return fenced(plain(shown), language) if shown.strip() else ""
    return safe_markdown(shown)


def tool_calls_text(message: Mapping[str, Any]) -> str:
    """Return the tool calls of a message as JSON, "" without any."""
    calls = message.get("tool_calls") or ()
    shown = [{"tool": c["function"].get("name"), "arguments": c["function"].get("arguments")} for c in calls if c.get("function")]
    return json.dumps(shown, indent=2, ensure_ascii=False) if shown else ""


def bundle(text: str, line: str, notes: Sequence[str] = (), *, language: str = "", running: bool = False) -> dict[str, str]:
    """Return the MIME bundle of an answer with its meter line."""
    body = body_markdown(text, language=language)
    meter = meter_html(line, notes, running=running, below=bool(body))
    return {
        "text/markdown": f"{body}\n\n{meter}" if body else meter,
        "text/plain": plain_answer(text, line, notes),
    }


def plain_answer(text: str, line: str, notes: Sequence[str] = ()) -> str:
    """Return the answer as plain text with the meter and the notes below it, those at most 80 columns wide."""
    body = plain(clipped(text)).rstrip()
    return f"{body}\n\n{foot(line, notes)}" if body else foot(line, notes)


def foot(line: str, notes: Sequence[str] = ()) -> str:
    """Return meter line and notes as plain text, at most 80 columns wide."""
    return "\n".join([wrapped(plain(line), 80, "  "), *(wrapped(f"Note: {plain(note)}", 80, "  ") for note in notes)])
