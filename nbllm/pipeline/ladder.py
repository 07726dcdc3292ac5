"""ladder: walks the rungs until one answers acceptably, then stale cache, then static answer, then one typed error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

from nbllm.core.ladder import FALLBACK_RESERVE_S, Next, explain, next_step
from nbllm.core.messages import Request, Rung, Sink
from nbllm.core.reply import Reply
from nbllm.errors import AllRungsFailed, AttemptFailed, CallFailed, DeadlineExceeded, ValidationFailed
from nbllm.pipeline.cache import CacheStage, as_stale
from nbllm.pipeline.cascade import CascadeWalk, Judge, late
from nbllm.pipeline.stage import Clock, Stage, call_of, show
from nbllm.pipeline.structure import StructureStage, needs_validation
from nbllm.settings.strategies import Cascade

Failure = tuple[Rung, Exception]


class LadderStage:
    """One answer from the first rung that gives one."""

    def __init__(self, inner: Stage, cache: CacheStage, structure: StructureStage, judge: Judge, clock: Clock) -> None:
        self._inner = inner
        self._judge = judge
        self._cache = cache
        self._structure = structure
        self._clock = clock

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Walk the rungs; where a fallback stands behind them, leave it a moment before the deadline."""
        cascade = call_of(request).cascade
        if cascade is not None:
            outcome = await self._cascade(request, sink, cascade)
            if not isinstance(outcome, Reply):
                outcome = await self._fall_back(request, sink, outcome)
        elif request.options.static is None and request.options.stale_ok_s is None:
            outcome = await self._walk(request, sink)
        else:
            outcome = await self._walk_in_time(request, sink)
            if not isinstance(outcome, Reply):
                outcome = await self._fall_back(request, sink, outcome)
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _cascade(self, request: Request, sink: Sink, spec: Cascade) -> Reply | Exception:
        walk = CascadeWalk(self._inner, self._judge, self._clock, request, spec, sink)
        outcome = await walk()
        return outcome if isinstance(outcome, Reply | DeadlineExceeded) else _failed(walk.failures, request)

    async def _walk_in_time(self, request: Request, sink: Sink) -> Reply | Exception:
        call = call_of(request)
        reserve_s = min(FALLBACK_RESERVE_S, max(0.0, call.deadline_at_s - self._clock.now_s()) / 10)
        try:
            async with asyncio.timeout_at(call.deadline_at_s - reserve_s) as scope:
                return await self._walk(request, sink)
        except TimeoutError as exc:
            if not scope.expired():
                raise
            ended = late(request)
            ended.__cause__ = exc
            return ended

    async def _walk(self, request: Request, sink: Sink) -> Reply | Exception:
        """Return the first answer, or the error for a ladder without one; raise what no other rung, nor an old answer, can mend."""
        failures: list[Failure] = []
        left: Sequence[Rung] = request.rungs
        while left:
            rung, *rest = left
            try:
                return await self._inner(request.on(rung, rungs_left=len(left)), sink)
            except Exception as exc:
                step = next_step(exc, rung, rest, on_interrupt=request.options.on_interrupt)
                if step.next is Next.RAISE:
                    raise
                failures.append((rung, exc))
                left = step.rungs
                if left and _was_seen(exc):
                    sink.restarted("interrupted")
        return _failed(failures, request)

    async def _fall_back(self, request: Request, sink: Sink, failure: Exception) -> Reply | Exception:
        """Return a stale answer, else the static one, else the failure."""
        call = call_of(request)
        if call.partial and call.partial.text and request.options.on_interrupt == "raise" and not needs_validation(request):
            return failure  # who has read pieces and cannot take them back gets no other text after them
        if call.partial or call.attempts:
            sink.restarted("fallback")
        reply = await self._stale(request, sink) or await self._static(request, sink, failure)
        if reply is None:
            return failure
        call.note(f"{reply.source} answer, because: {str(failure).partition(chr(10))[0]}")
        return reply

    async def _stale(self, request: Request, sink: Sink) -> Reply | None:
        stale_ok_s = request.options.stale_ok_s
        if stale_ok_s is None or request.options.cache == "off":
            return None
        for rung in request.rungs:
            call_of(request).key = None
            found = await self._cache.lookup(request.on(rung, rungs_left=1), stale_ok_s=stale_ok_s)
            if found is not None:
                reply = as_stale(found)
                show(reply, sink)
                return reply
        return None

    async def _static(self, request: Request, sink: Sink, failure: Exception) -> Reply | None:
        if request.options.static is None:
            return None
        call = call_of(request)
        reply = Reply(
            text=request.options.static,
            model="",
            rung="static",
            source="static",
            finish_reason=None,
            call_id=call.call_id,
            message={"role": "assistant", "content": request.options.static},
            cost_usd=Decimal(0),
            cost_basis="exact",
        )
        if needs_validation(request):
            try:
                reply = await self._structure.validate(reply, request)
            except ValidationFailed as exc:
                raise ValidationFailed(
                    f"{str(failure).partition(chr(10))[0]}\nThe static answer stood in, and does not pass: {exc.problem}",
                    text=exc.text,
                    problem=exc.problem,
                    hint="Give a static= that fits the schema and check, or leave it out.",
                ) from failure
        show(reply, sink)
        return reply


def _was_seen(exc: Exception) -> bool:
    """Whether a watcher may have seen pieces of an answer that now is void."""
    return isinstance(exc, ValidationFailed) or bool(getattr(exc, "partial", None))


def _failed(failures: Sequence[Failure], request: Request) -> Exception:
    """Return the error for a ladder on which nobody answered.

    One rung with one cause that no retry could mend (a wrong key, an unknown model) is raised as what it is; everything else
    becomes one group with every cause, earlier tries included.
    """
    call = call_of(request)
    rung, last = failures[-1]
    causes = [cause for _, exc in failures for cause in (*getattr(exc, "earlier", ()), exc)]
    if len(causes) == 1 and not (isinstance(last, AttemptFailed) and last.advice.retry):
        return last
    waited_s = sum(attempt.waited_s for attempt in call.attempts) + call.waited_s
    error = AllRungsFailed(
        explain([(r.label, exc) for r, exc in failures], call.attempts, waited_s=waited_s, spent_usd=call.spent()[0]),
        causes,
        hint=getattr(last, "hint", "") or f"Look at {rung.id}, add another rung to the ladder, or set stale_ok_s= or static=.",
    )
    error.partial = next((exc.partial for _, exc in reversed(failures) if isinstance(exc, CallFailed) and exc.partial), None)
    error.__cause__ = last
    return error
