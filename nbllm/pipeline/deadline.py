"""deadline: one total deadline for everything below."""

from __future__ import annotations

import asyncio

from nbllm.core.messages import Call, Request, Sink
from nbllm.core.reply import Reply
from nbllm.errors import DeadlineExceeded
from nbllm.money import format_usd
from nbllm.pipeline.stage import Stage, call_of


def tried_and_spent(call: Call) -> str:
    """Return which models were tried, with how many requests and at what cost; what was not sent is not counted."""
    rungs = ", ".join(dict.fromkeys(attempt.rung for attempt in call.attempts))
    if not rungs:
        return "nothing yet; nothing spent"
    sent = sum(attempt.sent is not False for attempt in call.attempts)
    cost_usd, basis = call.spent()
    spent = (
        "cost unknown" if cost_usd is None else f"{format_usd(cost_usd)} spent" + (", estimated" if basis == "estimated" else "")
    )
    return f"{rungs}; {sent} request{'' if sent == 1 else 's'}, {spent}"


class DeadlineStage:
    """Ends the call when its time is over, with what had come by then."""

    def __init__(self, inner: Stage) -> None:
        self._inner = inner

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Cancel everything below at the deadline."""
        call = call_of(request)
        try:
            async with asyncio.timeout_at(call.deadline_at_s) as scope:
                return await self._inner(request, sink)
        except TimeoutError as exc:
            if not scope.expired():
                raise
            tried = tried_and_spent(call)
            got = f" {len(call.partial.text)} characters had come; they are in .partial." if call.partial else ""
            raise DeadlineExceeded(
                f"No answer within the deadline of {request.options.deadline_s:g} s (tried: {tried}).{got}",
                partial=call.partial or None,
                hint="Raise deadline_s=, or put a faster model on the ladder.",
            ) from exc
