"""attempt: one request on a socket. TTFT and idle timers, one attempt row opened before the send and closed once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from nbllm import errors
from nbllm.core.accumulator import Accumulator
from nbllm.core.ladder import attempt_share_s
from nbllm.core.messages import Attempt, AttemptStatus, Chat, CostBasis, Delta, Embed, Ending, Request, Rung, Sink, Usage
from nbllm.core.ports import Ledger, Provider, RateLimits, Wire
from nbllm.core.pricing import cost, estimate_tokens
from nbllm.core.reply import Reply
from nbllm.pipeline.stage import Clock, call_of, committed, rung_of

Learn = Callable[[Rung, RateLimits], None]


class AttemptStage:
    """Sends one request and gives a Reply of what came; whatever happens, its row is closed and says what it cost."""

    def __init__(self, provider_for: Callable[[Rung], Provider], ledger: Ledger, clock: Clock, learn: Learn) -> None:
        self._provider_for = provider_for
        self._ledger = ledger
        self._clock = clock
        self._learn = learn

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Send, watch the timers, close the row."""
        call, rung = call_of(request), rung_of(request)
        provider = self._provider_for(rung)
        attempt = Attempt(
            attempt_id=f"{call.call_id}.{len(call.attempts) + 1}.{os.urandom(3).hex()}",
            call_id=call.call_id,
            number=len(call.attempts) + 1,
            rung=rung.id,
            endpoint=rung.endpoint_name,
            model=rung.model,
            purpose=request.purpose,
            started_at=self._clock.epoch_s(),
            streamed=request.options.watched and isinstance(request.content, Chat),
            waited_s=call.waited_s,
            worst_case_usd=call.reserved_usd,
        )
        call.waited_s = 0.0
        await committed(self._ledger.open_attempt(attempt), call)
        watch = _Watch(request, attempt, sink, self._clock, self._learn)
        failure: BaseException | None = None
        ending: Ending | None = None
        try:
            sink.started(attempt)
            ending = await watch.run(lambda: provider.send(watch.wire(), watch))
        except BaseException as exc:
            failure = exc
            call.partial = watch.gathered.partial()
            if isinstance(exc, errors.AttemptFailed):
                exc.rung = exc.rung or rung.id
                exc.partial = exc.partial or call.partial or None
            raise
        finally:
            closed = _closed(attempt, watch, ending, failure, rung)
            call.attempts.append(closed)
            await committed(self._ledger.close_attempt(closed), call, at_most_s=_patience_s(call.deadline_at_s, self._clock))
        return _reply(request, rung, watch, ending, closed)


def _patience_s(deadline_at_s: float, clock: Clock) -> float:
    """How long closing a row may keep the caller waiting: what is left of the deadline, never under 50 ms."""
    return min(1.0, max(0.05, deadline_at_s - clock.now_s()))


class _Watch:
    """The provider's Progress: gathers what comes, passes it to the sink, and keeps the timers."""

    def __init__(self, request: Request, attempt: Attempt, sink: Sink, clock: Clock, learn: Learn) -> None:
        self._request = request
        self._sink = sink
        self._now_s = clock.now_s
        self._learn = learn
        self._options = request.options
        self._streamed = attempt.streamed
        self._attempt_id = attempt.attempt_id
        self.gathered = Accumulator()
        self.was_sent = False
        self.counts: Usage | None = None
        self.started_s = clock.now_s()
        self.ended_s: float | None = None
        self._sent_s = self.started_s
        self._last_s = self.started_s
        self._first_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ran_out: errors.AttemptFailed | None = None
        self._scope: asyncio.Timeout | None = None

    # ------------------------------------------------------------------ Progress

    def sent(self) -> None:
        self.was_sent = True
        self._sent_s = self._last_s = self._now_s()

    def limits(self, limits: RateLimits) -> None:
        self._learn(rung_of(self._request), limits)

    def usage(self, usage: Usage) -> None:
        self.counts = usage

    def delta(self, delta: Delta) -> None:
        self._last_s = self._now_s()
        if self._first_s is None and (delta.text or delta.reasoning or delta.tool_call):
            self._first_s = self._last_s
            self._arm(asyncio.get_running_loop())  # from now on the idle timer counts, which may ring sooner
        self.gathered.add(delta)
        self._sink.delta(delta)

    # ------------------------------------------------------------------ timers

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the send to the first piece of a stream; a whole answer has no first token."""
        return self._first_s - self._sent_s if self._streamed and self._first_s is not None else None

    def wire(self) -> Wire:
        """Return the request as it goes out."""
        return Wire(
            rung=rung_of(self._request),
            content=self._request.content,
            streamed=self._streamed,
            attempt_id=self._attempt_id,
            deadline_s=max(0.05, call_of(self._request).deadline_at_s - self._now_s()),
        )

    async def run(self, send: Callable[[], Awaitable[Ending]]) -> Ending:
        """Await the send under the timers; a timer that runs out cancels it and becomes the fitting error."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as self._scope:
                self._arm(loop)
                return await send()
        except TimeoutError as exc:
            if self._ran_out is None:
                raise errors.ConnectionFailed(f"The connection to {rung_of(self._request).id} timed out.") from exc
            raise self._ran_out from None
        finally:
            self.ended_s = self._now_s()
            if self._timer is not None:
                self._timer.cancel()

    def _limit(self) -> tuple[float, Callable[[], errors.AttemptFailed]] | None:
        """Return when the timer that counts now runs out, and what it means then."""
        options, rung = self._options, rung_of(self._request)
        left_s = call_of(self._request).deadline_at_s - self.started_s
        rungs_left = self._request.rungs_left
        share_s = attempt_share_s(left_s, rungs_left=rungs_left, attempt_s=options.attempt_s, streamed=self._streamed)
        limits = [] if share_s is None else [(self.started_s + share_s, lambda: _too_slow(rung, share_s))]
        if self._streamed and self._first_s is None:
            # A stream that does not begin is a silent primary too: it may not use up its fallback's time.
            waits = [options.ttft_s] if options.ttft_s is not None else []
            first_s = min([*waits, left_s / rungs_left] if rungs_left > 1 else waits, default=None)
            if first_s is not None:
                limits.append((self._sent_s + first_s, lambda: _no_first_token(rung, first_s)))
        elif self._streamed and options.idle_s is not None:
            idle_s = options.idle_s
            limits.append((self._last_s + idle_s, lambda: _fell_silent(rung, idle_s)))
        return min(limits, key=lambda limit: limit[0]) if limits else None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        limit = self._limit()
        if self._timer is not None:
            self._timer.cancel()
        if limit is not None:
            self._timer = loop.call_later(max(0.0, limit[0] - self._now_s()), self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        # A piece that came only moved _last_s: the timer is armed once a period, not once a chunk.
        limit = self._limit()
        if limit is None:
            return
        if limit[0] - self._now_s() > 0.0005:
            self._arm(loop)
            return
        self._ran_out = limit[1]()
        if self._scope is not None:
            self._scope.reschedule(loop.time())


def _too_slow(rung: Rung, share_s: float) -> errors.AttemptFailed:
    return errors.AttemptTimeout(
        f"{rung.id} did not answer within {share_s:.3g} s, its share of the deadline.",
        hint="Give it longer with deadline_s= or attempt_s=, or put a faster model on the ladder.",
    )


def _no_first_token(rung: Rung, first_s: float) -> errors.AttemptFailed:
    return errors.FirstTokenTimeout(
        f"{rung.id} sent no first token within {first_s:.3g} s.",
        hint="Raise ttft_s= (and deadline_s=) if the model is known to think long before it answers.",
    )


def _fell_silent(rung: Rung, idle_s: float) -> errors.AttemptFailed:
    return errors.StreamInterrupted(f"{rung.id} fell silent for {idle_s:.3g} s in mid-answer (idle_s).")


def _closed(attempt: Attempt, watch: _Watch, ending: Ending | None, failure: BaseException | None, rung: Rung) -> Attempt:
    """Return the attempt's row as it is closed."""
    if failure is None:
        status = AttemptStatus.DONE
    elif isinstance(failure, (asyncio.CancelledError, KeyboardInterrupt)):
        status = AttemptStatus.CANCELLED
    else:
        status = AttemptStatus.FAILED
    usage = (ending.usage if ending and ending.usage != Usage() else None) or watch.counts
    cost_usd, basis, usage = _bill(watch, usage, failure, rung)
    return replace(
        attempt,
        status=status,
        sent=watch.was_sent,
        ttft_s=watch.ttft_s,
        latency_s=(watch.ended_s or watch.started_s) - watch.started_s,
        usage=usage,
        cost_usd=cost_usd,
        cost_basis=basis,
        finish_reason=ending.finish_reason if ending else None,
        error=None if failure is None else type(failure).__name__,
        http_status=getattr(failure, "status", None),
    )


def _bill(watch: _Watch, usage: Usage | None, failure: BaseException | None, rung: Rung) -> tuple[Decimal | None, CostBasis, Usage]:
    """Return what an attempt cost, how well that is known, and its counts.

    Not sent, or answered with an error status: nothing is billed. Counts of the provider: exact. Else what went out and came
    back is counted by us: estimated.
    """
    if not watch.was_sent or (getattr(failure, "status", None) or 0) >= 300:
        return Decimal(0), "exact", Usage(input_tokens=0, output_tokens=0)
    complete = (
        usage is not None
        and usage.input_tokens is not None
        and (
            usage.output_tokens is not None or isinstance(watch._request.content, Embed)  # noqa: SLF001 - one file, two halves
        )
    )
    if usage is None or not complete or (failure is not None and watch.gathered.partial()):
        usage = _estimated(watch, usage)
    basis: CostBasis = "estimated" if usage.estimated else "exact"
    if rung.price is None:
        return None, "unknown", usage
    amount = cost(usage, rung.price)
    return (amount, basis, usage) if amount is not None else (None, "unknown", usage)


def _estimated(watch: _Watch, usage: Usage | None) -> Usage:
    content, partial = watch._request.content, watch.gathered.partial()  # noqa: SLF001 - one file, two halves
    known = usage or Usage()
    texts = content.texts if isinstance(content, Embed) else tuple(_texts(content.messages))
    came = partial.text + partial.reasoning + "".join(str(t.get("function", {}).get("arguments", "")) for t in partial.tool_calls)
    return Usage(
        input_tokens=known.input_tokens if known.input_tokens is not None else sum(map(estimate_tokens, texts)),
        output_tokens=max(known.output_tokens or 0, estimate_tokens(came)),
        reasoning_tokens=known.reasoning_tokens,
        cached_input_tokens=known.cached_input_tokens,
        estimated=True,
    )


def _texts(messages: tuple[Any, ...]) -> list[str]:
    """Return every text in the messages, content parts included."""
    found: list[str] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, (list, tuple)):
            found.extend(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return found


def _reply(request: Request, rung: Rung, watch: _Watch, ending: Ending, closed: Attempt) -> Reply:
    partial = watch.gathered.partial()
    vectors = None
    if ending.vectors is not None:
        import numpy as np

        vectors = np.asarray(ending.vectors, dtype=np.float32)
    elif ending.finish_reason == "length" and not partial.text and not partial.tool_calls:
        raise errors.Truncated(
            f"{rung.id} used up its limit of tokens without writing any text"
            + (" (it only reasoned)." if partial.reasoning else "."),
            hint="Raise max_tokens=, or ask for less reasoning.",
            partial=partial or None,
        )
    return Reply(
        text=partial.text,
        model=ending.model or rung.model,
        rung=rung.id,
        source="model",
        finish_reason=ending.finish_reason,
        call_id=closed.call_id,
        reasoning=partial.reasoning,
        message=watch.gathered.message() if vectors is None else {},
        usage=closed.usage,
        cost_usd=closed.cost_usd,
        cost_basis=closed.cost_basis,
        ttft_s=closed.ttft_s,
        latency_s=closed.latency_s or 0.0,
        logprobs=partial.logprobs if request.content.__class__ is Chat else (),
        vectors=vectors,
        simulated=rung.simulated,
    )
