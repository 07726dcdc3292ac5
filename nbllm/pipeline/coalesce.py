"""coalesce: identical requests in flight share one run; all get its stream.

The one stage that detaches: a flight's run is a task of its own that outlives any one of its waiters. A waiter's own deadline,
cancellation or budget refusal ends only that waiter; if it led, the next one takes over with its own budgets.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Attempt, Call, Delta, Request, Sink
from nbllm.core.ports import Flights, Lease
from nbllm.core.reply import Reply
from nbllm.errors import BudgetError, StorageError, ValidationFailed
from nbllm.pipeline.cache import CacheStage, show
from nbllm.pipeline.stage import Clock, Stage, call_of
from nbllm.pipeline.structure import StructureStage, needs_validation

LEASE_S = 10.0
"""Life of a lease between processes; renewed each third of it. Long enough for a stalled process, short enough for a dead one."""
_POLL_S = (0.005, 0.05)
"""A follower in another process looks for the stored answer first after the shorter, then up to the longer time."""
_LEAVE_S = 0.05
"""How long the last waiter that leaves stays to see the run closed."""


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


class CoalesceStage:
    """Joins a request to the run of its equals, in this process by its loop, across processes by a lease."""

    def __init__(self, inner: Stage, flights: Flights, cache: CacheStage, structure: StructureStage, clock: Clock) -> None:
        self._inner = inner
        self._leases = flights
        self._cache = cache
        self._structure = structure
        self._clock = clock
        self._flights: dict[tuple[str, int, str], _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Lead or join, and wait."""
        options, call = request.options, call_of(request)
        if options.cache == "off" or call.key is None:
            return await self._inner(request, sink)
        join_key = (call.key, id(options.check) if options.check is not None else 0, options.cache)
        waiter = _Waiter(request, sink, asyncio.get_running_loop().create_future())
        flight = self._flights.get(join_key)
        joined = flight is not None and not flight.landed
        if flight is None or flight.landed:
            flight = self._flights[join_key] = _Flight(replace(call, attempts=[], notes=[]))
        flight.waiters.append(waiter)
        flight.fan_out.join(sink)
        flight.changed()
        if not joined:
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

    def _start(self, join_key: tuple[str, int, str], flight: _Flight) -> None:
        task = asyncio.get_running_loop().create_task(self._fly(join_key, flight))
        flight.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _leave(self, join_key: tuple[str, int, str], flight: _Flight, waiter: _Waiter) -> None:
        call = call_of(waiter.request)
        if flight.landed or waiter not in flight.waiters:
            return
        call.partial = flight.fan_out.so_far.partial()
        flight.waiters.remove(waiter)
        if waiter.sink in flight.fan_out.sinks:
            flight.fan_out.sinks.remove(waiter.sink)
        if flight.waiters:
            _hand_over_attempts(flight, waiter)
            flight.changed()
            return
        flight.landed = True
        if self._flights.get(join_key) is flight:
            del self._flights[join_key]
        if flight.task is not None:
            flight.task.cancel()
            # The run closes its rows and its socket in its own finally; stay for that, but never past a caller's deadline.
            await asyncio.wait([flight.task], timeout=_LEAVE_S)
        _hand_over_attempts(flight, waiter)
        call.notes.extend(note for note in flight.call.notes if note not in call.notes)

    # ------------------------------------------------------------------ the run

    async def _fly(self, join_key: tuple[str, int, str], flight: _Flight) -> None:
        """Run for the leader; when only its budget refuses, run again for the next one."""
        failure: BaseException | None = None
        reply: Reply | None = None
        try:
            while flight.waiters:
                leader = flight.leader
                try:
                    reply = await self._run(flight, replace(leader.request, call=flight.call))
                except BudgetError as exc:
                    if flight.waiters and flight.leader is leader and len(flight.waiters) > 1:
                        flight.waiters.pop(0)
                        if leader.sink in flight.fan_out.sinks:
                            flight.fan_out.sinks.remove(leader.sink)
                        _deliver(flight, leader, None, exc)
                        flight.changed()
                        continue
                    raise
                break
        except BaseException as exc:
            failure = exc
            if not isinstance(exc, Exception):
                raise
        finally:
            flight.landed = True
            if self._flights.get(join_key) is flight:
                del self._flights[join_key]
            for place, waiter in enumerate(flight.waiters):
                shared = None if reply is None else replace(reply, coalesced=True, data=None) if place else reply
                _deliver(flight, waiter, shared, failure)

    async def _run(self, flight: _Flight, request: Request) -> Reply:
        """Run under a lease, so that other processes on this home wait for the answer instead of buying it again."""
        if request.options.check is not None:
            return await self._inner(request, flight.fan_out)
        began = self._clock.epoch_s()
        delay_s = _POLL_S[0]
        while True:
            try:
                lease = await self._leases.lead(flight.call.key or "", lease_s=LEASE_S)
            except StorageError as exc:
                flight.call.note(exc.summary)
                return await self._inner(request, flight.fan_out)
            if lease is not None:
                return await self._lead(flight, request, lease, began)
            await asyncio.sleep(delay_s)
            delay_s = min(_POLL_S[1], delay_s * 1.5)
            found = await self._stored(request, began)
            if found is not None:
                show(found, flight.fan_out)
                return found

    async def _stored(self, request: Request, began: float) -> Reply | None:
        """Return what another process has stored meanwhile."""
        newer_than = began if request.options.cache == "refresh" else 0.0
        reply = await self._cache.lookup(request, newer_than=newer_than)
        return None if reply is None else replace(reply, coalesced=True)

    async def _lead(self, flight: _Flight, request: Request, lease: Lease, began: float) -> Reply:
        holder = _Holder(self._leases, lease)
        flight.call.may_store = holder.holds
        renewing = asyncio.get_running_loop().call_later(LEASE_S / 3, holder.renew)
        holder.timer = renewing
        try:
            # Between the miss and the lease another process may have stored the answer and let go of its lease.
            if lease.fence > 1 and (found := await self._stored(request, began)) is not None:
                show(found, flight.fan_out)
                return found
            return await self._inner(request, flight.fan_out)
        finally:
            await holder.release()


class _Holder:
    """Keeps a lease alive while its run lasts."""

    def __init__(self, leases: Flights, lease: Lease) -> None:
        self._leases = leases
        self._lease: Lease | None = lease
        self.timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def holds(self) -> bool:
        lease = self._lease
        if lease is None:
            return False
        try:
            return await self._leases.holds(lease)
        except StorageError:
            return False  # a lease that cannot be read is not held

    def renew(self) -> None:
        loop = asyncio.get_running_loop()

        async def prolong() -> None:
            if self._lease is not None:
                self._lease = await self._leases.renew(self._lease, lease_s=LEASE_S)
            if self._lease is not None:
                self.timer = loop.call_later(LEASE_S / 3, self.renew)

        self._task = loop.create_task(prolong())

    async def release(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            with suppress(StorageError):  # it expires by itself
                await self._leases.release(lease)


def _hand_over_attempts(flight: _Flight, waiter: _Waiter) -> None:
    """Give a waiter's call the attempts that were made on its row, each once."""
    call = call_of(waiter.request)
    have = {attempt.attempt_id for attempt in call.attempts}
    call.attempts.extend(a for a in flight.call.attempts if a.call_id == call.call_id and a.attempt_id not in have)


def _deliver(flight: _Flight, waiter: _Waiter, reply: Reply | None, failure: BaseException | None) -> None:
    _hand_over_attempts(flight, waiter)
    call = call_of(waiter.request)
    call.partial = flight.call.partial
    call.notes.extend(note for note in flight.call.notes if note not in call.notes)
    if waiter.done.done():
        return
    if reply is not None:
        waiter.done.set_result(reply)
    elif isinstance(failure, Exception):
        # Each waiter gets an error of its own: what is noted on one call must not show up on another.
        waiter.done.set_exception(copy(failure))
    else:
        waiter.done.cancel()
