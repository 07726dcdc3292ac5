"""What an attempt cost, and how well that is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec.structs import replace

from nbllm.core.messages import Content, CostBasis, Embed, Partial, Usage
from nbllm.core.pricing import Price, cost, estimate_tokens


class Bill(NamedTuple):
    """cost_usd is None when unknown, never a silent 0. usage: the counts that it was reckoned from."""

    cost_usd: Decimal | None
    basis: CostBasis
    usage: Usage


def bill(
    content: Content, came: Partial, usage: Usage | None, price: Price | None, *, sent: bool, failed: bool, status: int | None
) -> Bill:
    """Return the bill of one attempt.

    Not sent, or answered with an error status: nothing is billed. Complete counts of the provider: exact. Else, and where the
    answer broke off, what went out and what came back is counted by us: estimated. came: what was received. usage: the
    provider's counts, None without any. status: the HTTP status of a failure.
    """
    if not sent or (status or 0) >= 300:
        return Bill(Decimal(0), "exact", Usage(input_tokens=0, output_tokens=0))
    if usage is None or not _complete(usage, content) or (failed and came):
        usage = _estimated(content, came, usage or Usage())
    amount = cost(replace(usage, output_tokens=usage.output_tokens or 0) if isinstance(content, Embed) else usage, price)
    if amount is None:
        return Bill(None, "unknown", usage)
    return Bill(amount, "estimated" if usage.estimated else "exact", usage)


def _complete(usage: Usage, content: Content) -> bool:
    return usage.input_tokens is not None and (usage.output_tokens is not None or isinstance(content, Embed))


def _estimated(content: Content, came: Partial, known: Usage) -> Usage:
    arguments = (str(call.get("function", {}).get("arguments", "")) for call in came.tool_calls)
    return replace(
        known,
        input_tokens=known.input_tokens if known.input_tokens is not None else estimate_input_tokens(content),
        output_tokens=max(known.output_tokens or 0, estimate_tokens(came.text + came.reasoning + "".join(arguments))),
        estimated=True,
    )


def estimate_input_tokens(content: Content) -> int:
    """Return about how many tokens a request's texts have; pictures, sounds and files have as many as only their provider knows."""
    texts = content.texts if isinstance(content, Embed) else _texts(content.messages)
    return sum(map(estimate_tokens, texts))


def _texts(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every text in the messages, content parts included."""
    found: list[str] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, list | tuple):
            found.extend(part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
    return found
