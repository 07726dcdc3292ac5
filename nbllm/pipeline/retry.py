"""retry: backoff with full jitter, Retry-After, inside the deadline; a retry budget per endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from nbllm.core.backoff import RetryBudget, may_retry, on_attempt, on_retry, wait_s
from nbllm.core.messages import Request, Sink
from nbllm.core.reply import Reply
from nbllm.core.waits import paced_s
from nbllm.errors import AttemptFailed, FirstTokenTimeout, SchemaModeRefused, StreamInterrupted
from nbllm.pipeline.stage import Clock, Stage, call_of, rung_of
from nbllm.settings import Settings


class RetryStage:
    """Sends again what may succeed the second time; the last failure carries the ones before it as `.earlier`."""

    def __init__(self, inner: Stage, clock: Clock, settings: Callable[[], Settings]) -> None:
        self._inner = inner
        self._clock = clock
        self._settings = settings
        self._budgets: dict[str, RetryBudget] = {}

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Try, and try again at most `retries` times."""
        call, rung = call_of(request), rung_of(request)
        name = rung.endpoint_name
        earlier: list[AttemptFailed] = []
        for tried in range(request.options.retries + 1):
            try:
                return await self._counted(request, sink)
            except AttemptFailed as exc:
                exc.earlier = tuple(earlier)
                if tried == request.options.retries or not _worth_it(exc, request):
                    raise
                now_s = self._clock.now_s()
                delay_s = wait_s(tried, self._clock.jitter(), exc.retry_after_s, call.deadline_at_s - now_s)
                if delay_s is None or not may_retry(self._budget(name), now_s):
                    raise
                self._budgets[name] = on_retry(self._budget(name), now_s)
                earlier.append(exc)
                if isinstance(exc, StreamInterrupted) or exc.partial:
                    sink.restarted("interrupted")
                await asyncio.sleep(paced_s(delay_s))
                call.waited_s += delay_s
        raise AssertionError("unreachable: the last try returns or raises")  # pragma: no cover

    async def _counted(self, request: Request, sink: Sink) -> Reply:
        """Try once. Only what was tried counts: what breaker, limits or budget refuse allows no further retries."""
        call, name = call_of(request), rung_of(request).endpoint_name
        before = len(call.attempts)
        try:
            try:
                return await self._inner(request, sink)
            except SchemaModeRefused:
                # Once more at once, with the schema in the prompt: the endpoint is well, so that is no retry.
                return await self._inner(request, sink)
        finally:
            if len(call.attempts) > before:
                self._budgets[name] = on_attempt(self._budget(name), self._clock.now_s())

    def _budget(self, name: str) -> RetryBudget:
        settings = self._settings()
        share, floor = settings.retry_budget_share, settings.retry_budget_floor
        budget = self._budgets.get(name) or RetryBudget(share=share, floor=floor)
        if budget.share == share and budget.floor == floor:
            return budget
        return replace(budget, share=share, floor=floor)


def _worth_it(exc: AttemptFailed, request: Request) -> bool:
    """Whether the same rung may do better."""
    if not exc.advice.retry:
        return False
    if isinstance(exc, StreamInterrupted) or exc.partial:
        return request.options.on_interrupt == "restart" and request.rungs_left <= 1
    if isinstance(exc, FirstTokenTimeout):
        return request.rungs_left <= 1
    return True
