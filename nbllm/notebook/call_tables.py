"""Calls as %llm_calls shows them: the newest in a list, or one with its attempts and its recorded texts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from nbllm.core.messages import Attempt, CallRow
from nbllm.core.meter_line import short_label
from nbllm.core.ports import Filter, Recording
from nbllm.notebook import wording
from nbllm.notebook.views import Table, Text, View, columns

SHORT_ID = 8
_WORDS_CHARS = 50
_SOURCES = {"cache": "cache hit", "semantic": "similar hit", "stale": "stale answer", "static": "static answer"}


def calls_view(client: Any, where: Filter, limit: int) -> View:
    """Return the newest calls."""
    now = time.time()
    rows = [_call_row(call, client, now) for call in client.ledger.calls(where, limit=limit)]
    table = Table(
        columns=columns("call", "at", "model", "asked", "result", "#took", "#cost"),
        rows=rows,
        empty="No call fits yet. Ask something with %%llm, or take in more: --all, --since all.",
    )
    title = f"The newest {wording.plural(len(rows), 'call')}" if rows else "No calls"
    notes = ["%llm_calls ID shows one call in detail: its tokens, attempts and texts."] if rows else []
    return View(title, (table,), (*notes, *wording.simulated(any(row[2].startswith("sim/") for row in rows))))


def short_id(call_id: str) -> str:
    """Return the end of a call's id: ids may begin with the time, so that their ends tell them apart."""
    return call_id[-SHORT_ID:]


def _call_row(call: CallRow, client: Any, now: float) -> tuple[str, ...]:
    cost = cost_of(client.ledger.attempts(call.call_id))
    money = f"saved {wording.usd(call.saved_usd)}" if call.saved_usd and not cost else wording.usd(cost)
    return (
        short_id(call.call_id),
        wording.short_clock(call.started_at, now),
        short_label(call.rung or call.model or "-"),
        _asked(call, client.recordings.get(call.call_id)),
        result_of(call),
        "-" if call.latency_s is None else wording.seconds(call.latency_s),
        money,
    )


def _asked(call: CallRow, recording: Recording | None) -> str:
    """Return what a call was for and the first words of its prompt, as far as either is known."""
    messages = (recording.prompt.get("messages") if recording else None) or ()
    prompt = next((m.get("content") for m in reversed(messages) if m.get("role") == "user"), "")
    words = " ".join(prompt[:400].split()) if isinstance(prompt, str) else ""
    begin = words if len(words) <= _WORDS_CHARS else f"{words[: _WORDS_CHARS - 1].rstrip()}…"
    return ": ".join(part for part in (call.feature, begin) if part) or "-"


def result_of(call: CallRow) -> str:
    """Return how a call ended, in a few words."""
    if call.status.value not in {"done", "failed"}:
        return call.status.value
    if call.error:
        return call.error
    return "shared" if call.coalesced else _SOURCES.get(call.source or "", "answered")


def cost_of(attempts: Sequence[Attempt]) -> Decimal | None:
    """Return what the attempts that were sent cost together, None as soon as one is unknown; without any it is 0."""
    costs = [a.cost_usd for a in attempts if a.sent is not False]
    known = [cost for cost in costs if cost is not None]
    return sum(known, Decimal(0)) if len(known) == len(costs) else None


def call_view(client: Any, call: CallRow) -> View:
    """Return one call in detail: its numbers, its attempts, and its texts when they were recorded."""
    attempts = client.ledger.attempts(call.call_id)
    recording = client.recordings.get(call.call_id)
    heads = columns("#no.", "model", "for", "result", "#waited", "#took", "#cost")
    blocks: tuple[Table | Text, ...] = (
        Table(columns=columns("fact", "value"), rows=_facts(call, attempts)),
        Table(columns=heads, rows=[_attempt_row(a) for a in attempts], caption="Attempts", empty="Nothing was sent."),
        *_texts(recording),
    )
    return View(
        f"Call {short_id(call.call_id)}",
        blocks,
        () if recording else ("Its prompt and answer are not recorded, or were forgotten.",),
    )


def _facts(call: CallRow, attempts: Sequence[Attempt]) -> list[tuple[str, str]]:
    facts = [
        ("call", call.call_id),
        ("at", wording.clock(call.started_at)),
        ("asked for", call.model or "the default"),
        ("answered by", call.rung or "-"),
        ("result", result_of(call)),
        ("finish", call.finish_reason or "-"),
        ("took", wording.seconds(call.latency_s)),
        ("first token", "-" if call.ttft_s is None else wording.seconds(call.ttft_s)),
        ("tokens", f"{wording.number(call.input_tokens)} in, {wording.number(call.output_tokens)} out"),
        ("cost", wording.usd(cost_of(attempts))),
        ("session", call.session),
    ]
    optional = [("feature", call.feature), ("user", call.user), ("route", call.reason)]
    facts += [(name, value) for name, value in optional if value]
    if call.saved_usd is not None or call.saved_s is not None:
        facts.append(("saved", f"{wording.usd(call.saved_usd)} and {wording.seconds(call.saved_s)}"))
    return facts


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    return (
        str(attempt.number),
        attempt.rung,
        attempt.purpose,
        attempt.error or attempt.status.value,
        wording.seconds(attempt.waited_s) if attempt.waited_s else "-",
        wording.seconds(attempt.latency_s),
        wording.usd(attempt.cost_usd) + (" est." if attempt.cost_basis == "estimated" else ""),
    )


def _texts(recording: Recording | None) -> list[Text]:
    if recording is None:
        return []
    messages = recording.prompt.get("messages") or ()
    texts = [Text(f"Prompt ({m.get('role', 'unknown')})", _content(m.get("content"))) for m in messages]
    return [*texts, Text("Answer", _content(recording.answer.get("text") or recording.answer.get("message")))]


def _content(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
