"""How a Reply shows itself: the answer first, then one line of numbers, then notes.

Nothing of the model's text is HTML here: it goes through safe_markdown. Our own line is escaped too, because it holds names of
models and endpoints, which people and servers choose.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from nbllm.core.meter_line import meter_line
from nbllm.core.safe_markdown import clean, escape_html, safe_markdown
from nbllm.redaction import redact_registered

if TYPE_CHECKING:
    from nbllm.core.reply import Reply

SHORT_CHARS = 60
# Colours come from the theme; where it has none the text's own colour is used.
METER_RULE = "margin-top:0.7em;padding-top:0.35em;border-top:1px solid var(--jp-border-color2,rgba(128,128,128,0.4));"
METER_STYLE = "color:var(--jp-ui-font-color2,inherit);font-size:0.9em;line-height:1.5;font-variant-numeric:tabular-nums"
MAX_SHOWN_CHARS = 100_000
"""More than that makes a browser stutter; `.text` has all of it."""


def reply_markdown(reply: Reply) -> str:
    """Return the reply as Markdown for a notebook: safe, answer first, then usage and notes in small type."""
    rows = [meter_line(reply), *(f"Note: {note}" for note in reply.notes)]
    lines = "<br>".join(meter_row_html(row) for row in rows)
    body = safe_markdown(_shown(_body(reply)))
    style = f"{METER_RULE if body.strip() else ''}{METER_STYLE}"
    meter = f'<div class="nbllm-meter mathjax_ignore tex2jax_ignore" style="{style}">{lines}</div>'
    return f"{body}\n\n{meter}" if body.strip() else meter


def reply_plain(reply: Reply) -> str:
    """Return the reply as plain text for terminals: no control characters, answer first, then usage and notes."""
    body = clean(_shown(_body(reply)))
    rows = [meter_line(reply), *(f"Note: {note}" for note in reply.notes)]
    lines = "\n".join(wrapped(clean(row), indent="  ") for row in rows)
    return f"{body}\n\n{lines}" if body.strip() else lines


def reply_short(reply: Reply) -> str:
    """Return the reply on one line, for lists and a plain Python: its first words and its numbers."""
    words = " ".join(clean(_body(reply)[:400]).split())
    shown = words if len(words) <= SHORT_CHARS else f"{words[: SHORT_CHARS - 1]}…"
    return f"Reply({shown!r}, {clean(meter_line(reply))})"


def meter_row_html(row: str) -> str:
    """Return a meter line or note as escaped HTML in which no line begins with the dot between two parts."""
    return escape_html(row.replace("\n", " ").replace(" · ", "\u00a0· "))


def wrapped(line: str, width: int = 80, indent: str = "") -> str:
    """Return a meter line or note on as many lines as it needs, broken after its dots, never inside a part."""
    glued = "\u00a0· ".join(part.replace(" ", "\u00a0") for part in line.split(" · ")) if " · " in line else line
    lines = textwrap.wrap(glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\u00a0", " ")


def _body(reply: Reply) -> str:
    """Return what the answer says, without the keys in use: its text, else its tool calls or the shape of its vectors."""
    if reply.text:
        return redact_registered(reply.text)
    shape = getattr(reply.vectors, "shape", None)
    if shape is not None and len(shape) == 2:
        return f"{shape[0]:,} vectors of {shape[1]:,} dimensions"
    calls = [_call(c["function"]) for c in reply.message.get("tool_calls") or () if isinstance(c.get("function"), dict)]
    return "\n".join(f"- calls {call}" for call in calls)


def _call(function: dict[str, Any]) -> str:
    """Return a tool call in one code span; backticks in it would end the span early."""
    text = f"{function.get('name', '')}({function.get('arguments', '')})".replace("`", "'").replace("\n", " ")
    return f"`{redact_registered(text)}`"


def _shown(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}\n\n[{len(text) - MAX_SHOWN_CHARS:,} more characters are not shown; `.text` has them.]"
