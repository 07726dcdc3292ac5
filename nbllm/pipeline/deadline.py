"""deadline: one total deadline for everything below."""

from __future__ import annotations

import asyncio

from nbllm.core.messages import Request, Sink
from nbllm.core.reply import Reply
from nbllm.errors import DeadlineExceeded
from nbllm.pipeline.stage import Stage, call_of


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
            tried = ", ".join(dict.fromkeys(attempt.rung for attempt in call.attempts)) or "nothing yet"
            got = f" {len(call.partial.text)} characters had come; they are in .partial." if call.partial else ""
            raise DeadlineExceeded(
                f"No answer within the deadline of {request.options.deadline_s:g} s (tried: {tried}).{got}",
                partial=call.partial or None,
                hint="Raise deadline_s=, or put a faster model on the ladder.",
            ) from exc
