"""A call that is watched while it runs: its events, from the loop to the thread that shows them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from threading import Event as ThreadEvent
from typing import Any, Self

from nbllm.background import Job, LoopHost, mailbox_of
from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Attempt, Delta, Partial, Request, Sink, Usage
from nbllm.core.reply import Reply

_CLOSE_S = 1.0
"""How long a cancelled call is waited for, so that its socket and rows are closed when the caller goes on."""


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

    Leaving `events()` early, by an exception too, cancels the call and keeps what came: `partial()`.
    """

    def __init__(self, host: LoopHost | None, request: Request, send: Send, *, hit: Reply | None = None) -> None:
        self.request = request
        self.attempts: list[Attempt] = []
        self.restarts: list[str] = []
        self._queue = _Queue()
        self._gathered = Accumulator()
        self._hit = hit
        self._started_s = time.monotonic()
        self._host = host
        self._job: Job[Reply] | None = None
        if hit is None:
            assert host is not None  # noqa: S101 - only a hit needs no loop
            self._job = Job(host, lambda: send(request, self._queue))
        elif hit.text or hit.reasoning:
            self._queue.delta(Delta(text=hit.text, reasoning=hit.reasoning))

    # ------------------------------------------------------------------ watching

    def events(self, tick_s: float = 0.1) -> Iterator[Event | None]:
        """Yield what happens; None whenever nothing did for tick_s seconds, so that a meter can move and Ctrl-C gets through."""
        bell = ThreadEvent()
        self._queue.wake = bell.set
        if self._job is not None:
            self._job.done.add_done_callback(lambda _: bell.set())
        try:
            while True:
                over = self._over
                while self._queue.events:
                    yield self._took(self._queue.events.popleft())
                if over:
                    return
                if not bell.wait(tick_s):
                    yield None
                bell.clear()
        finally:
            self.leave()

    async def aevents(self) -> AsyncIterator[Event]:
        """Yield what happens, on the caller's own loop."""
        bell = asyncio.Event()
        mailbox = mailbox_of(asyncio.get_running_loop())
        self._queue.wake = lambda: mailbox.post(bell.set)
        if self._job is not None:
            self._job.done.add_done_callback(lambda _: mailbox.post(bell.set))
        try:
            while True:
                over = self._over
                while self._queue.events:
                    yield self._took(self._queue.events.popleft())
                if over:
                    return
                await bell.wait()
                bell.clear()
        finally:
            self.cancel()

    @property
    def _over(self) -> bool:
        return self._job is None or self._job.done.done()

    def _took(self, event: Event) -> Event:
        if isinstance(event, DeltaEvent):
            self._gathered.add(event.delta)
        elif isinstance(event, Started):
            self.attempts.append(event.attempt)
        else:
            self.restarts.append(event.reason)
            self._gathered = Accumulator()
        return event

    def leave(self) -> None:
        """End the call if it still runs, and wait until its socket and its rows are closed (at most a second)."""
        if self._over:
            return
        self.cancel()
        with suppress(Exception, CancelledError):
            assert self._job is not None  # noqa: S101 - not over
            self._job.done.exception(_CLOSE_S)
        while self._queue.events:
            self._took(self._queue.events.popleft())

    # ------------------------------------------------------------------ the result

    def cancel(self) -> None:
        """End the call, if it still runs: upstream is closed within a second."""
        if self._job is not None and not self._job.done.done():
            self._job.cancel()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call was made."""
        return time.monotonic() - self._started_s

    @property
    def notes(self) -> list[str]:
        """What the road has to say to the user so far."""
        return list(self.request.call.notes) if self.request.call is not None else []

    @property
    def reply(self) -> Reply:
        """The reply. Waits for the end of the call; raises what ended it. Not to be asked for on an event loop before the end."""
        if self._hit is not None:
            return self._hit
        assert self._job is not None  # noqa: S101 - a call is a hit or has a job
        while True:
            # In slices, so that Ctrl-C gets through on every system.
            with suppress(TimeoutError):
                return self._job.done.result(0.1 if not self._job.done.done() else None)

    def partial(self) -> Partial:
        """Return what came so far."""
        return self._gathered.partial()

    def partial_reply(self) -> Reply:
        """Return what came so far as a Reply that is marked interrupted; its cost is what the ledger knows of it."""
        partial, call = self.partial(), self.request.call
        rung = self.attempts[-1].rung if self.attempts else ""
        attempts = tuple(call.attempts) if call is not None else ()
        cost_usd, basis = call.spent() if call is not None else (None, "unknown")
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


class _Pieces:
    """What Stream and AsyncStream share: the reply, and the error's partial text."""

    def __init__(self, live: LiveCall) -> None:
        self._live = live
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The reply, once every piece was taken. RuntimeError before that."""
        if self._reply is None:
            raise RuntimeError("The stream is not at its end yet: take every piece, then ask for .reply.")
        return self._reply

    @property
    def restarts(self) -> tuple[str, ...]:
        """Why the answer began anew, each time: pieces from before the last restart are void."""
        return tuple(self._live.restarts)

    @property
    def partial(self) -> Partial:
        """What came so far."""
        return self._live.partial()

    def _finish(self) -> None:
        self._reply = self._live.reply


class Stream(_Pieces):
    """An answer as str pieces. A context manager; leaving it early ends the call upstream."""

    def __init__(self, live: LiveCall) -> None:
        super().__init__(live)
        self._pieces = self._iterate()

    def _iterate(self) -> Generator[str, None, None]:
        for event in self._live.events():
            if isinstance(event, DeltaEvent) and event.delta.text:
                yield event.delta.text
        self._finish()

    def __iter__(self) -> Iterator[str]:
        """Return the pieces."""
        return self._pieces

    def __next__(self) -> str:
        """Return the next piece."""
        return next(self._pieces)

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the call."""
        self.close()

    def close(self) -> None:
        """End the call, if it still runs."""
        self._pieces.close()
        self._live.leave()


class AsyncStream(_Pieces):
    """The async twin of Stream."""

    def __init__(self, live: LiveCall) -> None:
        super().__init__(live)
        self._pieces = self._iterate()

    async def _iterate(self) -> AsyncGenerator[str, None]:
        async for event in self._live.aevents():
            if isinstance(event, DeltaEvent) and event.delta.text:
                yield event.delta.text
        self._finish()

    def __aiter__(self) -> AsyncIterator[str]:
        """Return the pieces."""
        return self._pieces

    async def __aenter__(self) -> Self:
        """Return the stream."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the call."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the call, if it still runs."""
        self._live.cancel()
        await self._pieces.aclose()
