"""A call that is watched while it runs: its events, from the loop to the thread that shows them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nbllm.background import CLOSE_S, Job, LoopHost, mailbox_of, waited
from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Attempt, Delta, Partial, Request, Sink, Usage
from nbllm.core.reply import Reply
from nbllm.errors import CallFailed
from nbllm.outcome import Bell, Cancelled
from nbllm.pipeline.stage import show


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt is about to be sent."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class DeltaEvent:
    """A piece of the answer came."""

    delta: Delta


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came so far is void; the answer begins anew."""

    reason: str


Event = Started | DeltaEvent | Restarted
Send = Callable[[Request, Sink], Coroutine[Any, Any, Reply]]


class _Queue:
    """A Sink that hands events to another thread: the loop appends, the caller drains; a wake-up only where one waits."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.wake: Callable[[], object] = lambda: None

    def started(self, attempt: Attempt) -> None:
        self.events.append(Started(attempt))
        self.wake()

    def delta(self, delta: Delta) -> None:
        self.events.append(DeltaEvent(delta))
        self.wake()

    def restarted(self, reason: str) -> None:
        self.events.append(Restarted(reason))
        self.wake()


class LiveCall:
    """One call under way. Iterate over `events()` or `aevents()`, then ask for `reply`; `cancel()` ends it.

    Leaving `events()` early, by an exception too, cancels the call and keeps what came: `partial()`. So does dropping it.
    finished: what the client adds to the reply, once. begins: told of the job before it begins; what it raises ends it.
    """

    def __init__(
        self,
        host: LoopHost | None,
        request: Request,
        send: Send,
        *,
        hit: Reply | None = None,
        finished: Callable[[Reply], Reply] = lambda reply: reply,
        begins: Callable[[Job[Reply]], object] = lambda _: None,
    ) -> None:
        self.request = request
        self.attempts: list[Attempt] = []
        self.restarts: list[str] = []
        # Nothing that the loop holds on to may lead back here: a call that was dropped is to end at once.
        self._queue = queue = _Queue()
        self._gathered = Accumulator()
        self._reply = hit
        self._finished = finished
        self._started_s = time.monotonic()
        self._host = host
        self._job: Job[Reply] | None = None
        if hit is not None:
            show(hit, queue)
            return
        assert host is not None  # noqa: S101 - only a hit needs no loop
        job = self._job = Job(host, lambda: send(request, queue))
        try:
            begins(job)
            job.start()
        except BaseException:
            job.cancel()
            raise

    def __del__(self) -> None:
        """End a call that nobody will ask for."""
        if getattr(self, "_job", None) is not None:
            self.cancel()

    # ------------------------------------------------------------------ watching

    def events(self, tick_s: float = 0.1) -> Generator[Event | None, None, None]:
        """Yield what happens; None whenever nothing did for tick_s seconds, so that a meter can move and Ctrl-C gets through."""
        bell = Bell()
        self._queue.wake = bell.ring
        if self._job is not None:
            self._job.done.then(bell.ring)
        try:
            while True:
                over = self.over
                while self._queue.events:
                    yield self._took(self._queue.events.popleft())
                if over:
                    return
                if not bell.wait(tick_s):
                    yield None
        finally:
            self.leave()

    async def aevents(self) -> AsyncGenerator[Event, None]:
        """Yield what happens, on the caller's own loop."""
        bell = asyncio.Event()
        mailbox = mailbox_of(asyncio.get_running_loop())
        self._queue.wake = lambda: mailbox.post(bell.set)
        if self._job is not None:
            self._job.done.then(lambda: mailbox.post(bell.set))
        try:
            while True:
                over = self.over
                while self._queue.events:
                    yield self._took(self._queue.events.popleft())
                if over:
                    return
                await bell.wait()
                bell.clear()
        finally:
            await self.aleave()

    @property
    def over(self) -> bool:
        """Whether the call has ended, however it did."""
        return self._job is None or self._job.done.over

    @property
    def taken(self) -> bool:
        """Whether the call has ended and every event was taken."""
        return self.over and not self._queue.events

    def _took(self, event: Event) -> Event:
        if isinstance(event, DeltaEvent):
            self._gathered.add(event.delta)
        elif isinstance(event, Started):
            self.attempts.append(event.attempt)
        else:
            self.restarts.append(event.reason)
            self._gathered = Accumulator()
        return event

    # ------------------------------------------------------------------ ending

    def cancel(self) -> None:
        """End the call, if it still runs: upstream is closed within a second."""
        if self._job is not None:
            self._job.cancel()

    def leave(self) -> None:
        """End the call if it still runs, wait until its socket and its rows are closed (at most a second), take what came."""
        job, host = self._job, self._host
        if job is not None and not job.done.over:
            job.cancel()
            # A collector may have dropped us on the very loop that has to do it, or in a forked child.
            if host is not None and not host.is_here and not host.of_parent:
                job.done.wait(CLOSE_S)
        self._take_rest()

    async def aleave(self) -> None:
        """Do the same on the caller's own loop."""
        job = self._job
        if job is not None and not job.done.over and not job.of_parent:
            closed = asyncio.Event()
            mailbox = mailbox_of(asyncio.get_running_loop())
            job.done.then(lambda: mailbox.post(closed.set))
            job.cancel()
            with suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), CLOSE_S)
        self._take_rest()

    def _take_rest(self) -> None:
        while self._queue.events:
            self._took(self._queue.events.popleft())

    # ------------------------------------------------------------------ the result

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call was made."""
        return time.monotonic() - self._started_s

    @property
    def notes(self) -> list[str]:
        """What the road has to say to the user so far."""
        if self._reply is not None:
            return list(self._reply.notes)
        return list(self.request.call.notes) if self.request.call is not None else []

    @property
    def reply(self) -> Reply:
        """The reply. Waits for the end of the call; raises what ended it, CallFailed if it was cancelled.

        Not to be asked for on an event loop before the end.
        """
        if self._reply is None:
            assert self._job is not None  # noqa: S101 - a call is a hit or has a job
            try:
                reply = waited(self._job)
            except Cancelled:
                raise self._stopped() from None
            self._reply = self._finished(reply)
        return self._reply

    def _stopped(self) -> CallFailed:
        call = self.request.call
        error = CallFailed(
            "The call was stopped before its end.", partial=self.partial() or (call.partial if call else None) or None
        )
        if call is not None:
            error.call_id, error.spent_usd = call.call_id, call.spent()[0]
        return error

    def partial(self) -> Partial:
        """Return what came so far."""
        return self._gathered.partial()

    def partial_reply(self) -> Reply:
        """Return what came so far as a Reply that is marked interrupted; its cost is what the ledger knows of it."""
        partial, call = self.partial(), self.request.call
        rung = self.attempts[-1].rung if self.attempts else ""
        attempts = tuple(call.attempts) if call is not None else ()
        cost_usd, basis = call.spent() if call is not None and self.over else (None, "unknown")
        return Reply(
            text=partial.text,
            model=self.attempts[-1].model if self.attempts else "",
            rung=rung,
            source="model",
            finish_reason=None,
            call_id=call.call_id if call is not None else "",
            reasoning=partial.reasoning,
            message=self._gathered.message(),
            usage=attempts[-1].usage if attempts else Usage(),
            cost_usd=cost_usd,
            cost_basis=basis,
            ttft_s=attempts[-1].ttft_s if attempts else None,
            latency_s=self.elapsed_s,
            attempts=attempts,
            simulated=rung.startswith("sim/"),
            interrupted=True,
            notes=tuple(self.notes),
        )
