"""The meter line: who answered, how much, how fast, for how much. Numbers in, one line of text out.

    sim/large (simulated) · 412 in · 96 out · first token 0.31 s · 84 tok/s · $0.0012 · cache miss · session $0.43 of $5.00

Every part says its unit; what is unknown is said or left out, never shown as 0. No colour, no HTML: the same line stands in a
notebook, in a terminal and in a saved file.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from nbllm.core.records import HELPING
from nbllm.money import format_usd

if TYPE_CHECKING:
    from nbllm.core.messages import Attempt, CostBasis, Usage
    from nbllm.core.reply import Reply

SEPARATOR = " · "
MIN_HELD_S = 0.05
MIN_PACE_S = 0.05
"""Below that, tokens a second say more about buffers than about the model."""


def meter_line(reply: Reply, *, session_usd: Decimal | None = None, session_limit_usd: Decimal | None = None) -> str:
    """Return the line of a finished (or stopped) reply. session_usd: what the session has cost so far, None: leave it out."""
    stored = reply.source in {"cache", "semantic", "stale"}
    vectors = reply.vectors is not None
    label = f"{short_label(reply.rung)} (simulated)" if reply.simulated else short_label(reply.rung)
    parts = [label or "no model", *(tokens(reply.usage, vectors=vectors) if reply.source != "static" else [])]
    parts += _pace(reply, stored=stored)
    parts += [cost(reply.cost_usd, reply.cost_basis)] if not stored and reply.source != "static" else []
    parts += [_source(reply)] if not reply.interrupted else []
    parts += _marks(reply)
    parts += [session(session_usd, session_limit_usd)] if session_usd is not None else []
    return SEPARATOR.join(parts)


def short_label(rung: str, most_chars: int = 36) -> str:
    """Return a model id as a line can hold it: of a long one the options behind its ? give way first."""
    if len(rung) <= most_chars:
        return rung
    name, question, options = rung.partition("?")
    first = options.partition("&")[0]
    if question and len(name) + len(first) + 3 <= most_chars:
        return f"{name}?{first}&…"
    return f"{rung[: most_chars - 1]}…"


def tokens(usage: Usage, *, vectors: bool = False) -> list[str]:
    """Return the parts for token counts; ~ where they were counted by us, and reasoning apart."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return ["tokens unknown"]
    about = "~" if usage.estimated else ""
    parts = [f"{about}{usage.input_tokens:,} in" if usage.input_tokens is not None else "input tokens unknown"]
    if usage.cached_input_tokens:
        parts[0] += f" ({about}{usage.cached_input_tokens:,} cached by the provider)"
    if vectors:
        return parts
    out = f"{about}{usage.output_tokens:,} out" if usage.output_tokens is not None else "output tokens unknown"
    if usage.reasoning_tokens:
        out += f" ({about}{usage.reasoning_tokens:,} thinking)"
    return [*parts, out]


def cost(cost_usd: Decimal | None, basis: CostBasis) -> str:
    """Return the cost in USD; "cost unknown" rather than 0, and ~ with "(estimated)" where it is no bill."""
    if cost_usd is None or basis == "unknown":
        return "cost unknown"
    return f"~{format_usd(cost_usd)} (estimated)" if basis == "estimated" else format_usd(cost_usd)


def session(spent_usd: Decimal, limit_usd: Decimal | None) -> str:
    """Return what the session has spent, and of how much."""
    of = f" of {format_usd(limit_usd)}" if limit_usd is not None else ""
    return f"session {format_usd(spent_usd)}{of}"


def seconds(value_s: float) -> str:
    """Return a time with the precision that means something, in seconds or milliseconds."""
    if value_s < 0.0095:
        return f"{max(value_s, 0.0) * 1000:.2g} ms"
    return f"{value_s:.2f} s" if value_s < 1 else f"{value_s:.1f} s" if value_s < 99.95 else f"{value_s:,.0f} s"


def _pace(reply: Reply, *, stored: bool) -> list[str]:
    """Return the parts about speed: those of the model for a fresh answer, the hit's own for a stored one."""
    if stored or reply.source == "static":
        return [f"in {seconds(reply.latency_s)}"]
    if reply.ttft_s is None:
        return [f"whole answer in {seconds(reply.latency_s)}"]
    parts = [f"first token {_two(reply.ttft_s)}"]
    streaming_s = _streaming_s(reply)
    if reply.usage.output_tokens and streaming_s >= MIN_PACE_S:
        about = "~" if reply.usage.estimated else ""
        parts.append(f"{about}{reply.usage.output_tokens / streaming_s:,.0f} tok/s")
    return parts


def _two(value_s: float) -> str:
    return f"{value_s:.2f} s" if value_s < 100 else seconds(value_s)


def _streaming_s(reply: Reply) -> float:
    """Seconds between the first token and the end, of the attempt that answered where it is known."""
    last = next(reversed(_answering(reply)), None)
    if last is not None and last.latency_s is not None and last.ttft_s is not None:
        return last.latency_s - last.ttft_s
    return reply.latency_s - (reply.ttft_s or 0.0)


def _answering(reply: Reply) -> list[Attempt]:
    """Return the attempts at the answer itself, without those that only helped to decide."""
    return [a for a in reply.attempts if a.purpose not in HELPING or reply.vectors is not None]


def _source(reply: Reply) -> str:
    kinds = {"cache": "cache hit", "semantic": "similar question in the cache", "stale": "stale answer from the cache"}
    if reply.source == "static":
        return "static answer: no model answered"
    if reply.source == "model":
        return "shared with an identical call" if reply.coalesced else "cache miss"
    saved = [f"{format_usd(reply.saved_usd)}"] if reply.saved_usd else []
    # Who waited for an identical call that was under way saved its cost, and only the time that was gone when he joined.
    saved_s = max(0.0, (reply.saved_s or 0.0) - reply.latency_s) if reply.coalesced else reply.saved_s
    saved += [seconds(saved_s)] if saved_s else []
    age = f" ({_age(reply.age_s)} old)" if reply.source == "stale" and reply.age_s is not None else ""
    joined = "joined an identical call" if reply.coalesced else kinds[reply.source]
    return joined + age + (f", saved {' and '.join(saved)}" if saved else "")


def _age(age_s: float) -> str:
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age_s >= unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{max(age_s, 0.0):.0f} s"


def _marks(reply: Reply) -> list[str]:
    """Return what a reader must not overlook."""
    marks = ["stopped: this is a part of the answer"] if reply.interrupted else []
    marks += ["truncated: the limit on tokens cut it"] if reply.truncated else []
    sent = [a for a in _answering(reply) if a.sent is not False]
    marks += [f"{reply.repairs} repair{'s' if reply.repairs > 1 else ''}"] if reply.repairs else []
    marks += [f"{reply.rejected} rejected answer{'s' if reply.rejected > 1 else ''}"] if reply.rejected else []
    marks += [f"held back {seconds(reply.held_s)}"] if reply.held_s is not None and reply.held_s >= MIN_HELD_S else []
    marks += ["not accepted: the best answer so far"] if not reply.accepted else []
    failed = len(sent) - 1 - reply.repairs - reply.rejected
    marks += [f"{failed} failed attempt{'s' if failed > 1 else ''}"] if reply.source == "model" and failed > 0 else []
    return marks
