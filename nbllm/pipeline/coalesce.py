"""coalesce: identical requests in flight share one run; all get its stream.

The one stage that detaches: a flight's run is a task of its own that outlives any one of its waiters. A waiter's own deadline,
cancellation or budget refusal ends only that waiter; if it led, the next one takes over with its own budgets.
"""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from nbllm.core.messages import Options, Request, Sink
from nbllm.core.ports import Flights, Lease
from nbllm.core.reply import Reply
from nbllm.errors import AttemptTimeout, BudgetError, HomeUnusable, NbllmError, StorageError, ValidationFailed
from nbllm.pipeline.cache import CacheStage
from nbllm.pipeline.flight import FanOut, Flight, Waiter
from nbllm.pipeline.lease import LEASE_S, Holder
from nbllm.pipeline.stage import Clock, Stage, call_of, looked_at, patience_s, rung_of, show, within
from nbllm.pipeline.structure import HoldingSink, StructureStage, needs_validation

_POLL_S = (0.005, 0.05)
"""A follower in another process looks for the stored answer first after the shorter, then up to the longer time."""
_LEAD_S, _LEAD_PART = 0.5, 0.1
"""How long, and for which part of its time, a call waits at most for a lease of a locked home: then it goes alone."""
_LOCKED = "The home is locked by another program; other processes may buy this answer again."
_LEAVE_S = 0.03
"""How long the last waiter that leaves stays to see the run closed."""
_SAME_S = 1.0
"""Deadlines that differ by less are the same: those of calls that were made together."""

JoinKey = tuple[str, int, str, str, bool, float | None]


class CoalesceStage:
    """Joins a request to the run of its equals, in this process by its loop, across processes by a lease."""

    def __init__(self, inner: Stage, flights: Flights, cache: CacheStage, structure: StructureStage, clock: Clock) -> None:
        self._inner = inner
        self._leases = flights
        self._cache = cache
        self._structure = structure
        self._clock = clock
        self._flights: dict[JoinKey, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Lead or join, and wait."""
        options, call = request.options, call_of(request)
        if options.cache == "off" or call.key is None:
            return await self._inner(request, sink)
        # Who cannot take back an answer that is too old for it joins only calls of its own ttl_s.
        alike = options.on_interrupt == "raise"
        reply, holds = await self._joined(request, sink, ttl_s=options.ttl_s if alike else None)
        if not alike and _too_old(reply, options):
            sink.restarted("rejected")
            reply, holds = await self._joined(request, sink, ttl_s=options.ttl_s)
        if reply.coalesced and needs_validation(request):
            try:
                reply = await self._structure.validate(reply, request)
            except ValidationFailed:
                sink.restarted("rejected")
                return await self._inner(request, sink)
        if holds:
            show(replace(reply, reasoning=""), sink)
        return reply

    async def _joined(self, request: Request, sink: Sink, *, ttl_s: float | None) -> tuple[Reply, bool]:
        """Return a run's answer, and whether its text was held back. ttl_s: join only runs for that one; None: any."""
        options, call = request.options, call_of(request)
        # Who cannot take pieces back does not join a run that may begin anew; it follows it like another process would.
        # Nor does who wants no other question's answer join a run that may give one.
        check = id(options.check) if options.check is not None else 0
        join_key = (call.key or "", check, options.cache, options.on_interrupt, options.semantic is False, ttl_s)
        # Nor may it see a shared text that its own type may still reject.
        holds = options.on_interrupt == "raise" and needs_validation(request)
        waiter = Waiter(request, HoldingSink(sink) if holds else sink, asyncio.get_running_loop().create_future())
        waiter.done.add_done_callback(looked_at)
        flight = self._flights.get(join_key)
        if flight is None:
            own = replace(call, attempts=[], notes=[], partial=None)
            flight = self._flights[join_key] = Flight(own, FanOut(self._clock.now_s))
        flight.join(waiter)
        if flight.task is None:
            self._start(join_key, flight)
        try:
            return await (self._share_of(flight, waiter) if request.rungs_left > 1 else waiter.done), holds
        finally:
            await self._leave(join_key, flight, waiter)

    async def aclose(self) -> None:
        """Cancel what is still in flight and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------ joining and leaving

    def _start(self, join_key: JoinKey, flight: Flight) -> None:
        flight.task = asyncio.get_running_loop().create_task(self._fly(join_key, flight))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)

    def _land(self, join_key: JoinKey, flight: Flight) -> None:
        """Let nobody join any more."""
        flight.landed = True
        if self._flights.get(join_key) is flight:
            del self._flights[join_key]

    async def _leave(self, join_key: JoinKey, flight: Flight, waiter: Waiter) -> None:
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

    async def _share_of(self, flight: Flight, waiter: Waiter) -> Reply:
        """Wait, but where the run goes by another call's time, no longer than an attempt of this call's own might take.

        The run may have all the time of a longer deadline, or of a ladder with one rung; this call's next rung must not starve
        for that.
        """
        leads, call, joined_s = flight.leader is waiter, call_of(waiter.request), self._clock.now_s()
        while not waiter.done.done() and not (waiter.request.options.watched and flight.fan_out.so_far.partial()):
            from_s = max(joined_s, flight.fan_out.began_s or joined_s)
            until_s = _share_ends_s(waiter.request, from_s)
            left_s = until_s - self._clock.now_s()
            if left_s <= 0:
                if not leads or flight.call.deadline_at_s > call.deadline_at_s + _SAME_S:
                    raise _not_waited_for(waiter.request, until_s - from_s)
                left_s = _SAME_S  # the attempt's own timer sees to it
            await asyncio.wait([waiter.done], timeout=left_s)
        return await waiter.done

    # ------------------------------------------------------------------ the run

    async def _fly(self, join_key: JoinKey, flight: Flight) -> None:
        """Run for the leader; where the outcome is its own affair, run again for the others."""
        outcome: Reply | BaseException | None = None
        runner: Waiter | None = None
        try:
            while flight.waiters:
                runner = flight.leader
                try:
                    outcome = await self._run(flight, runner)
                    alone = not isinstance(outcome, Reply)
                except Exception as exc:
                    outcome, alone = exc, isinstance(exc, BudgetError)
                if not flight.pass_on(runner, outcome, alone=alone):
                    break
        except BaseException as exc:
            outcome = exc
            raise
        finally:
            self._land(join_key, flight)
            flight.arrive(runner, outcome)

    async def _run(self, flight: Flight, runner: Waiter) -> Reply | AttemptTimeout:
        """Run under a lease, so that other processes on this home wait for the answer instead of buying it again.

        An error that is returned is the leader's own: it cannot wait for another process for so long.
        """
        request = replace(runner.request, call=flight.call)
        flight.call.may_store = None
        if request.options.check is not None:
            return await self._inner(request, flight.fan_out)
        refresh = request.options.cache == "refresh"
        key = f"{flight.call.key}:refresh" if refresh else flight.call.key or ""
        newer_than = self._clock.epoch_s() if refresh else 0.0
        began_s, delay_s = self._clock.now_s(), 0.0
        while True:
            try:
                patience = patience_s(flight.call, self._clock, at_most_s=_LEAD_S, part=_LEAD_PART)
                lease = await within(patience, self._leases.lead(key, lease_s=LEASE_S))
            except (StorageError, HomeUnusable, TimeoutError) as exc:
                flight.call.note(exc.summary if isinstance(exc, NbllmError) else _LOCKED)
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
            until_s = _share_ends_s(request, began_s)
            if request.rungs_left > 1 and self._clock.now_s() >= until_s:
                return _not_waited_for(request, until_s - began_s)

    async def _lead(self, flight: Flight, request: Request, lease: Lease, newer_than: float | None) -> Reply:
        """Run with the lease held. newer_than: look first for an entry that another process has stored since; None: do not."""
        holder = Holder(self._leases, lease)
        flight.call.may_store = holder.holds
        try:
            found = None if newer_than is None else await self._stored(flight, request, newer_than)
            return found or await self._inner(request, flight.fan_out)
        finally:
            await holder.release()

    async def _stored(self, flight: Flight, request: Request, newer_than: float) -> Reply | None:
        """Return what another process has stored meanwhile, as one piece."""
        reply = await self._cache.lookup(request, newer_than=newer_than)
        if reply is None:
            return None
        show(reply, flight.fan_out)
        return replace(reply, coalesced=True)


def _too_old(reply: Reply, options: Options) -> bool:
    """Whether a stored answer that a run was given is older than this call allows: the call that ran may allow more."""
    return reply.coalesced and reply.age_s is not None and options.ttl_s is not None and reply.age_s > options.ttl_s


def _share_ends_s(request: Request, from_s: float) -> float:
    """Return until when a call with other rungs behind this one may wait here."""
    return from_s + max(0.0, call_of(request).deadline_at_s - from_s) / request.rungs_left


def _not_waited_for(request: Request, waited_s: float) -> AttemptTimeout:
    rung = rung_of(request)
    return AttemptTimeout(
        f"{rung.id} did not answer another call with the same question within {waited_s:.3g} s, this one's share of the deadline.",
        rung=rung.id,
    )
