"""attempt: one request on a socket. TTFT and idle timers, one attempt row opened before the send and closed once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from nbllm import errors
from nbllm.core.accumulator import Accumulator, message_of
from nbllm.core.billing import bill
from nbllm.core.messages import Attempt, AttemptStatus, Chat, Delta, Embed, Ending, Partial, Request, Rung, Sink, Usage
from nbllm.core.ports import Ledger, Provider, RateLimits, Wire
from nbllm.core.reply import Reply
from nbllm.core.timers import Progress, Timer, next_timer, ran_out
from nbllm.pipeline.stage import Clock, call_of, committed, patience_s, rung_of, written
from nbllm.settings import Settings

Learn = Callable[[Rung, RateLimits], None]
_OPENING = 0.1
"""Part of the remaining time that a locked ledger may take before the request is sent."""


class AttemptStage:
    """Sends one request and gives a Reply of what came; whatever happens, its row is closed and says what it cost."""

    def __init__(
        self,
        provider_for: Callable[[Rung], Provider],
        ledger: Ledger,
        clock: Clock,
        learn: Learn,
        settings: Callable[[], Settings],
    ) -> None:
        self._provider_for = provider_for
        self._ledger = ledger
        self._clock = clock
        self._learn = learn
        self._settings = settings

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Send, watch the timers, close the row."""
        call, rung = call_of(request), rung_of(request)
        provider = self._provider_for(rung)
        attempt = self._opening(request)
        call.waited_s = 0.0
        watch = _Watch(request, attempt, sink, self._clock, self._learn, self._settings().call)
        failure: BaseException | None = None
        ending: Ending | None = None
        row = written(self._ledger.open_attempt, attempt, call)
        try:
            if row is not None:
                await committed(row, call, at_most_s=patience_s(call, self._clock, part=_OPENING))
            sink.started(attempt)
            ending = await watch.run(lambda: provider.send(watch.wire(), watch))
        except BaseException as exc:
            failure = exc
            came = watch.gathered.partial()
            call.partial = came or call.partial
            errors.drop_frames(exc)
            if isinstance(exc, errors.AttemptFailed):
                exc.rung = exc.rung or rung.id
                exc.partial = exc.partial or came or None
            raise
        finally:
            came = watch.gathered.partial()
            closed = _closed(attempt, watch, came, ending, failure, request)
            call.attempts.append(closed)
            row = written(self._ledger.close_attempt, closed, call)
            if row is not None:
                # Who is cancelled must go: the row is in good hands, and a fallback may be waiting for these milliseconds.
                at_most_s = 0.0 if closed.status is AttemptStatus.CANCELLED else patience_s(call, self._clock)
                await committed(row, call, at_most_s=at_most_s)
        return _reply(request, rung, came, ending, closed)

    def _opening(self, request: Request) -> Attempt:
        """Return the attempt's row as it is opened."""
        call, rung = call_of(request), rung_of(request)
        number = call.next_number
        return Attempt(
            attempt_id=f"{call.call_id}.{number}.{os.urandom(3).hex()}",
            call_id=call.call_id,
            number=number,
            rung=rung.id,
            endpoint=rung.endpoint_name,
            model=rung.model,
            purpose="embed" if request.purpose == "answer" and isinstance(request.content, Embed) else request.purpose,
            started_at=self._clock.epoch_s(),
            streamed=request.options.watched and isinstance(request.content, Chat),
            waited_s=call.waited_s,
            worst_case_usd=call.reserved_usd,
        )


class _Watch:
    """The provider's Progress: gathers what comes, passes it to the sink, and keeps the timers."""

    def __init__(
        self, request: Request, attempt: Attempt, sink: Sink, clock: Clock, learn: Learn, usual: Mapping[str, Any]
    ) -> None:
        self._request = request
        self._usual = usual
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
        self.counts = usage.plausible()

    def delta(self, delta: Delta) -> None:
        self._last_s = self._now_s()
        if self._first_s is None and (delta.text or delta.reasoning or delta.tool_call):
            self._first_s = self._last_s
            if self._streamed:
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
        self.started_s = self._sent_s = self._last_s = self._now_s()
        try:
            if not self._streamed and self._next_timer() is None:
                return await send()  # only the call's own deadline counts, now and later
            async with asyncio.timeout(None) as self._scope:
                self._arm(loop)
                return await send()
        except TimeoutError as exc:
            if self._ran_out is None:
                raise errors.ConnectionFailed(f"The connection to {rung_of(self._request).id} timed out.") from exc
            raise self._ran_out from None
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this call: a library below did so within itself.
            raise errors.ConnectionFailed(f"The request to {rung_of(self._request).id} was given up from within.") from exc
        finally:
            self.ended_s = self._now_s()
            if self._timer is not None:
                self._timer.cancel()

    def _next_timer(self) -> Timer | None:
        progress = Progress(
            streamed=self._streamed,
            started_s=self.started_s,
            sent_s=self._sent_s,
            last_s=self._last_s,
            begun=self._first_s is not None,
        )
        # Asked anew each time: the deadline of a shared run moves with those who wait for it.
        request = self._request
        return next_timer(
            self._options, self._usual, progress, deadline_at_s=call_of(request).deadline_at_s, rungs_left=request.rungs_left
        )

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = self._next_timer()
        if self._timer is not None:
            self._timer.cancel()
        if timer is not None:
            self._timer = loop.call_later(max(0.0, timer.at_s - self._now_s()), self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        # A piece that came only moved _last_s: the timer is armed once a period, not once a chunk.
        timer = self._next_timer()
        if timer is None:
            return
        if timer.at_s - self._now_s() > 0.0005:
            self._arm(loop)
            return
        self._ran_out = ran_out(timer, rung_of(self._request), begun=self._first_s is not None and self._streamed)
        if self._scope is not None:
            self._scope.reschedule(loop.time())


def _closed(
    attempt: Attempt, watch: _Watch, came: Partial, ending: Ending | None, failure: BaseException | None, request: Request
) -> Attempt:
    """Return the attempt's row as it is closed. came: what was received."""
    if failure is None:
        status = AttemptStatus.DONE
    elif isinstance(failure, (asyncio.CancelledError, KeyboardInterrupt)):
        status = AttemptStatus.CANCELLED
    else:
        status = AttemptStatus.FAILED
    http_status = getattr(failure, "status", None)
    said = ending.usage.plausible() if ending else Usage()
    billed = bill(
        request.content,
        came,
        watch.counts if said == Usage() else said,
        rung_of(request).price,
        sent=watch.was_sent,
        failed=failure is not None,
        status=http_status,
    )
    return replace(
        attempt,
        status=status,
        sent=watch.was_sent,
        ttft_s=watch.ttft_s,
        latency_s=(watch.ended_s or watch.started_s) - watch.started_s,
        usage=billed.usage,
        cost_usd=billed.cost_usd,
        cost_basis=billed.basis,
        finish_reason=ending.finish_reason if ending else None,
        error=None if failure is None else type(failure).__name__,
        http_status=http_status,
    )


def _reply(request: Request, rung: Rung, partial: Partial, ending: Ending, closed: Attempt) -> Reply:
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
        message=message_of(partial) if vectors is None else {},
        usage=closed.usage,
        cost_usd=closed.cost_usd,
        cost_basis=closed.cost_basis,
        ttft_s=closed.ttft_s,
        latency_s=closed.latency_s or 0.0,
        logprobs=partial.logprobs if request.content.__class__ is Chat else (),
        vectors=vectors,
        simulated=rung.simulated,
    )
