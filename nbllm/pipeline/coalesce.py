"""coalesce: identical requests in flight share one run; all get its stream.

The one stage that detaches: a flight's run is a task of its own that outlives any one of its waiters. A waiter's own deadline,
cancellation or budget refusal ends only that waiter; if it led, the next one takes over with its own budgets.
"""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import dataclass, field, replace

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Attempt, Call, Delta, Request, Sink
from nbllm.core.ports import Flights, Lease
from nbllm.core.reply import Reply
from nbllm.errors import BudgetError, HomeUnusable, StorageError, ValidationFailed
from nbllm.pipeline.cache import CacheStage
from nbllm.pipeline.lease import LEASE_S, Holder
from nbllm.pipeline.stage import Clock, Stage, call_of, patience_s, show, show_tool_calls
from nbllm.pipeline.structure import StructureStage, needs_validation

_POLL_S = (0.005, 0.05)
"""A follower in another process looks for the stored answer first after the shorter, then up to the longer time."""
_LEAVE_S = 0.03
"""How long the last waiter that leaves stays to see the run closed."""

JoinKey = tuple[str, int, str]


@dataclass(eq=False, slots=True)
class _Waiter:
    request: Request
    sink: Sink
    done: asyncio.Future[Reply]


class _FanOut:
    """Passes the run's stream to every waiter; who joins late first gets what came so far, in one piece."""

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self.so_far = Accumulator()
        self._attempt: Attempt | None = None

    def join(self, sink: Sink) -> None:
        if self._attempt is not None:
            sink.started(self._attempt)
            partial = self.so_far.partial()
            if partial.text or partial.reasoning:
                sink.delta(Delta(text=partial.text, reasoning=partial.reasoning))
            show_tool_calls(partial.tool_calls, sink)
        self.sinks.append(sink)

    def started(self, attempt: Attempt) -> None:
        self._attempt = attempt
        for sink in self.sinks:
            sink.started(attempt)

    def delta(self, delta: Delta) -> None:
        self.so_far.add(delta)
        for sink in self.sinks:
            sink.delta(delta)

    def restarted(self, reason: str) -> None:
        self.so_far = Accumulator()
        for sink in self.sinks:
            sink.restarted(reason)


@dataclass(eq=False)
class _Flight:
    """One run and those who wait for it. `call` is the run's own: its deadline is the latest of the waiters'."""

    call: Call
    waiters: list[_Waiter] = field(default_factory=list)
    fan_out: _FanOut = field(default_factory=_FanOut)
    task: asyncio.Task[None] | None = None
    landed: bool = False

    @property
    def leader(self) -> _Waiter:
        """The waiter that pays: the first that is still there."""
        return self.waiters[0]

    def changed(self) -> None:
        """Take over deadline, budgets and row from those who are still there."""
        lead = call_of(self.leader.request)
        self.call.deadline_at_s = max(call_of(w.request).deadline_at_s for w in self.waiters)
        self.call.call_id, self.call.session, self.call.payer = lead.call_id, lead.session, lead.payer
        self.call.attempts_before = len(lead.attempts)

    def remove(self, waiter: _Waiter) -> None:
        """Forget a waiter and its sink."""
        self.waiters.remove(waiter)
        self.fan_out.sinks = [sink for sink in self.fan_out.sinks if sink is not waiter.sink]

    def hand_over(self, waiter: _Waiter) -> None:
        """Give a waiter's call the attempts that were made on its row, each once, and what the run has to say."""
        call = call_of(waiter.request)
        have = {attempt.attempt_id for attempt in call.attempts}
        call.attempts.extend(a for a in self.call.attempts if a.call_id == call.call_id and a.attempt_id not in have)
        call.notes.extend(note for note in self.call.notes if note not in call.notes)
        call.partial = self.fan_out.so_far.partial() or self.call.partial or call.partial


class CoalesceStage:
    """Joins a request to the run of its equals, in this process by its loop, across processes by a lease."""

    def __init__(self, inner: Stage, flights: Flights, cache: CacheStage, structure: StructureStage, clock: Clock) -> None:
        self._inner = inner
        self._leases = flights
        self._cache = cache
        self._structure = structure
        self._clock = clock
        self._flights: dict[JoinKey, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Lead or join, and wait."""
        options, call = request.options, call_of(request)
        if options.cache == "off" or call.key is None:
            return await self._inner(request, sink)
        join_key = (call.key, id(options.check) if options.check is not None else 0, options.cache)
        waiter = _Waiter(request, sink, asyncio.get_running_loop().create_future())
        flight = self._flights.get(join_key)
        if flight is None:
            flight = self._flights[join_key] = _Flight(replace(call, attempts=[], notes=[], partial=None))
        flight.waiters.append(waiter)
        flight.fan_out.join(sink)
        flight.changed()
        if flight.task is None:
            self._start(join_key, flight)
        try:
            reply = await waiter.done
        finally:
            await self._leave(join_key, flight, waiter)
        if reply.coalesced and needs_validation(request):
            try:
                reply = await self._structure.validate(reply, request)
            except ValidationFailed:
                sink.restarted("rejected")
                return await self._inner(request, sink)
        return reply

    async def aclose(self) -> None:
        """Cancel what is still in flight and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------ joining and leaving

    def _start(self, join_key: JoinKey, flight: _Flight) -> None:
        flight.task = asyncio.get_running_loop().create_task(self._fly(join_key, flight))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)

    def _land(self, join_key: JoinKey, flight: _Flight) -> None:
        """Let nobody join any more."""
        flight.landed = True
        if self._flights.get(join_key) is flight:
            del self._flights[join_key]

    async def _leave(self, join_key: JoinKey, flight: _Flight, waiter: _Waiter) -> None:
        """Take a waiter that waits no longer off its flight; the last one ends the run."""
        if flight.landed or waiter not in flight.waiters:
            return
        flight.remove(waiter)
        if flight.waiters:
            flight.hand_over(waiter)
            flight.changed()
            return
        self._land(join_key, flight)
        if flight.task is not None:
            flight.task.cancel()
            # The run closes its rows and its socket in its own finally; stay for that, but never past a caller's deadline.
            patience = patience_s(call_of(waiter.request), self._clock, at_most_s=_LEAVE_S)
            await asyncio.wait([flight.task], timeout=patience)
        flight.hand_over(waiter)

    # ------------------------------------------------------------------ the run

    async def _fly(self, join_key: JoinKey, flight: _Flight) -> None:
        """Run for the leader; when only its budget refuses, run again for the next one."""
        failure: BaseException | None = None
        reply: Reply | None = None
        runner: _Waiter | None = None
        try:
            while reply is None and flight.waiters:
                runner = flight.leader
                try:
                    reply = await self._run(flight, replace(runner.request, call=flight.call))
                except BudgetError as exc:
                    if not _passed_on(flight, runner, exc):
                        raise
        except BaseException as exc:
            failure = exc
            if not isinstance(exc, Exception):
                raise
        finally:
            self._land(join_key, flight)
            for place, waiter in enumerate(flight.waiters):
                if reply is not None and waiter is not runner:
                    _deliver(flight, waiter, replace(reply, coalesced=True, data=None), None)
                else:
                    _deliver(flight, waiter, reply, _own(failure) if place else failure)

    async def _run(self, flight: _Flight, request: Request) -> Reply:
        """Run under a lease, so that other processes on this home wait for the answer instead of buying it again."""
        flight.call.may_store = None
        if request.options.check is not None:
            return await self._inner(request, flight.fan_out)
        refresh = request.options.cache == "refresh"
        key = f"{flight.call.key}:refresh" if refresh else flight.call.key or ""
        newer_than = self._clock.epoch_s() if refresh else 0.0
        delay_s = 0.0
        while True:
            try:
                lease = await self._leases.lead(key, lease_s=LEASE_S)
            except (StorageError, HomeUnusable) as exc:
                flight.call.note(exc.summary)
                return await self._inner(request, flight.fan_out)
            # Between the miss and the lease another process may have stored the answer and let go of its lease.
            look = bool(delay_s) if refresh else lease is not None and lease.fence > 1
            if lease is not None:
                return await self._lead(flight, request, lease, newer_than if look else None)
            delay_s = min(_POLL_S[1], delay_s * 1.5 or _POLL_S[0])
            await asyncio.sleep(delay_s)
            found = await self._stored(flight, request, newer_than)
            if found is not None:
                return found

    async def _lead(self, flight: _Flight, request: Request, lease: Lease, newer_than: float | None) -> Reply:
        """Run with the lease held. newer_than: look first for an entry that another process has stored since; None: do not."""
        holder = Holder(self._leases, lease)
        flight.call.may_store = holder.holds
        try:
            found = None if newer_than is None else await self._stored(flight, request, newer_than)
            return found or await self._inner(request, flight.fan_out)
        finally:
            await holder.release()

    async def _stored(self, flight: _Flight, request: Request, newer_than: float) -> Reply | None:
        """Return what another process has stored meanwhile, as one piece."""
        reply = await self._cache.lookup(request, newer_than=newer_than)
        if reply is None:
            return None
        show(reply, flight.fan_out)
        return replace(reply, coalesced=True)


def _passed_on(flight: _Flight, runner: _Waiter, refusal: BudgetError) -> bool:
    """Let the next waiter lead after a budget refused; False when there is none. One whose leader left meanwhile leads already."""
    if not flight.waiters:
        return False
    if flight.leader is runner:
        if len(flight.waiters) == 1:
            return False
        flight.remove(runner)
        _deliver(flight, runner, None, refusal)
    if flight.fan_out.so_far.partial():
        flight.fan_out.restarted("interrupted")
    flight.changed()
    return True


def _deliver(flight: _Flight, waiter: _Waiter, reply: Reply | None, failure: BaseException | None) -> None:
    """Give a waiter its outcome: the reply, the error, or, where the run itself was cancelled, a cancellation."""
    flight.hand_over(waiter)
    if waiter.done.done():
        return
    if reply is not None:
        waiter.done.set_result(reply)
    elif isinstance(failure, Exception):
        waiter.done.set_exception(failure)
    else:
        waiter.done.cancel()


def _own(failure: BaseException | None) -> BaseException | None:
    """Return a copy of an error: what is noted on one waiter's must not show up on another's."""
    if not isinstance(failure, Exception):
        return failure
    try:
        own = copy(failure)
    except Exception:
        return failure  # another library's, whose constructor asks for more than its args: better shared than none
    own.__notes__ = list(getattr(failure, "__notes__", ()))
    own.__cause__ = failure.__cause__
    return own.with_traceback(failure.__traceback__)
