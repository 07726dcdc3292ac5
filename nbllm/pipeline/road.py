"""The road, assembled: the order of the stages, and the fast door for exact hits made of the same functions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from nbllm.core.breaker import BreakerState
from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import NOWHERE, Call, Content, Origin, Request, Rung, Sink
from nbllm.core.ports import BudgetStore, Flights, Ledger, Provider, Recordings, ResponseStore, SharedState, Written
from nbllm.core.ports.matches import Matches
from nbllm.core.ports.semantic import VectorIndex
from nbllm.core.reply import Reply
from nbllm.core.throttle import BucketState
from nbllm.pipeline.attempt import AttemptStage
from nbllm.pipeline.breaker import Breakers, BreakerStage
from nbllm.pipeline.budget import BudgetStage
from nbllm.pipeline.cache import Cache, CacheStage, KeepStage
from nbllm.pipeline.cascade import Judge
from nbllm.pipeline.choose import Chooser
from nbllm.pipeline.coalesce import CoalesceStage
from nbllm.pipeline.deadline import DeadlineStage
from nbllm.pipeline.embedding import Embedding
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.ladder import LadderStage
from nbllm.pipeline.observed import Observed
from nbllm.pipeline.record import Ended, Recorder, RecordStage
from nbllm.pipeline.retry import RetryStage
from nbllm.pipeline.route import Keepsakes, Router, RouteStage
from nbllm.pipeline.route_plans import Plans
from nbllm.pipeline.semantic import Semantic, SemanticStage
from nbllm.pipeline.stage import SETTLE_S, Clock, call_of, written
from nbllm.pipeline.structure import StructureStage, runs_users_code
from nbllm.pipeline.throttle import Throttles, ThrottleStage
from nbllm.pipeline.workers import Workers
from nbllm.settings import Settings

_CLOSE_S = 2.0
"""How long closing waits for calls that were cancelled to close their rows and sockets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the road stands on. `settings` is asked anew for each call: %llm_config may change them between two."""

    settings: Callable[[], Settings]
    session: str
    router: Router
    provider_for: Callable[[Rung], Provider]
    key_of: Callable[[Rung], str | None]
    request_bytes: Callable[[Content], int]
    store: ResponseStore
    flights: Flights
    ledger: Ledger
    recordings: Callable[[], Recordings]
    budgets: BudgetStore
    index: VectorIndex
    matches: Matches
    breaker_states: SharedState[BreakerState]
    bucket_states: SharedState[BucketState]
    executor: Callable[[], Executor]
    flow: Callable[[], Mapping[str, Any] | None] = lambda: None
    origin: Callable[[], Origin] = lambda: NOWHERE
    onlookers: Sequence[Ended] = ()
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True, slots=True)
class Hit:
    """An exact answer that was found without leaving the caller's thread; `written`: its row, if it is worth waiting for."""

    reply: Reply
    written: Written


class Road:
    """record > deadline > route > ladder, then on each rung cache > coalesce > semantic > keep > structure > retry ... attempt."""

    def __init__(self, parts: Parts) -> None:
        clock = parts.clock
        self._parts = parts
        self._clock = clock
        self._random = random.Random()  # a road of its own, with its own seed, in each process, a forked one too
        self.workers = Workers(parts.executor)
        self.breakers = Breakers(parts.breaker_states, clock, parts.key_of)
        self.throttles = Throttles(parts.bucket_states, clock)
        self.cache = Cache(parts.store, clock, parts.settings)
        # Hooks have threads of their own: one that hangs must not keep a check of another call waiting.
        self._hook_workers = Workers(parts.executor)
        self._readers = Workers(parts.executor)  # nor a plan's file
        self.recorder = Recorder(
            parts.ledger, parts.recordings, clock, parts.settings, self._hook_workers, onlookers=parts.onlookers
        )

        attempt = AttemptStage(parts.provider_for, parts.ledger, clock, self.throttles.learn, parts.settings)
        budget = BudgetStage(attempt, parts.budgets, lambda: parts.settings().budgets, parts.request_bytes, clock)
        breaker = BreakerStage(budget, self.breakers)
        throttle = ThrottleStage(breaker, self.throttles, self.breakers, clock)
        retry = RetryStage(throttle, clock, parts.settings)
        structure = StructureStage(retry, self.workers)
        self.helpers = self._helping(retry, structure)
        self._embedding = Embedding(self.helpers, self.workers, parts.router.rung)
        keep = KeepStage(structure, self.cache, self.workers)
        self.semantic = self._likening(structure)
        semantic = SemanticStage(keep, self.semantic, parts.settings)
        reader = CacheStage(keep, self.cache, structure)
        self._coalesce = CoalesceStage(semantic, parts.flights, reader, structure, clock)
        cache = CacheStage(self._coalesce, self.cache, structure)
        ladder = LadderStage(cache, reader, structure, Judge(self.helpers, self.cache, self.workers, clock), clock)
        route = self._routing(ladder, reader)
        deadline = DeadlineStage(route)
        self._first = RecordStage(deadline, self.recorder)
        self._running: set[asyncio.Task[Any]] = set()
        self._closing: asyncio.Event | None = None

    def _routing(self, ladder: LadderStage, reader: CacheStage) -> RouteStage:
        """Return the route stage, with what routes that choose by themselves ask."""
        parts = self._parts
        plans = self._plans = Plans(self._readers, self._clock)
        self._keepsakes = Keepsakes(lambda: parts.settings().routes, parts.router.rung, self.cache, plans)
        observed = Observed(parts.ledger, self._clock, self.workers, self.recorder.listeners.append)
        self.chooser = Chooser(
            settings=parts.settings,
            rung_of=parts.router.rung,
            helpers=self.helpers,
            embedding=self._embedding,
            breakers=self.breakers,
            throttles=self.throttles,
            observed=observed,
            plans=plans,
            clock=self._clock,
        )
        return RouteStage(ladder, parts.router, self.chooser, self._keepsakes, reader)

    def _helping(self, retry: RetryStage, structure: StructureStage) -> Helpers:
        """Return the way of helper calls: retry ... attempt; for those that are kept with cache and flights of their own."""
        parts, clock = self._parts, self._clock
        keep = KeepStage(retry, self.cache, self.workers)
        reader = CacheStage(keep, self.cache, structure)
        self._helpers_coalesce = CoalesceStage(keep, parts.flights, reader, structure, clock)
        return Helpers(retry, CacheStage(self._helpers_coalesce, self.cache, structure), parts.router.rung, clock)

    def _likening(self, structure: StructureStage) -> Semantic:
        parts = self._parts
        return Semantic(
            index=parts.index,
            matches=parts.matches,
            cache=self.cache,
            structure=structure,
            helpers=self.helpers,
            embedding=self._embedding,
            workers=self.workers,
            readers=self._readers,
            clock=self._clock,
        )

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Send a request down the road. One that try_hit handed on is opened already."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine on a loop runs in one
        self._running.add(task)
        try:
            return await self._first(request if request.call is not None else self.open(request), sink)
        finally:
            self._running.discard(task)
            if self._closing is not None and not self._running:
                self._closing.set()

    def open(self, request: Request) -> Request:
        """Open a call: its id, its clock, its deadline."""
        now_s = self._clock.now_s()
        epoch_s = self._clock.epoch_s()
        call = Call(
            call_id=f"{int(epoch_s * 1000):011x}{self._random.getrandbits(40):010x}",
            session=self._parts.session,
            started_at=epoch_s,
            started_s=now_s,
            deadline_at_s=now_s + request.options.deadline_s,
            payer=request.options,
            flow=self._parts.flow(),
            origin=self._parts.origin(),
        )
        return request.opened(call)

    def try_hit(self, request: Request, *, own_thread: bool = True, together: bool = False) -> Hit | Request:
        """Return an exact hit on the first rung, or the opened request, to be handed to the road without anything done twice.

        own_thread: the caller's thread may be kept busy for a moment; False on an event loop, where a long text is not parsed.
        together: the caller awaits the hit's row, which may be committed with those of other hits of this turn of its loop.
        The user's own code (a check, a type's validators) may take any time: it runs on the road, under the deadline.
        """
        request = self.open(request)
        options, store = request.options, self._parts.store
        if options.cache != "use" or store.waits or runs_users_code(request):
            return request
        routed = self._parts.router.now(request)
        if routed is None:
            return request
        rung, call = routed.rungs[0], call_of(routed)
        if call.strategy is not None:
            reply = self._keepsakes.now(routed, call.strategy, own_thread=own_thread)
        else:
            call.key = fingerprint(routed.content, rung)
            reply = self.cache.read_now(routed, rung, call.key, own_thread=own_thread)
        if reply is None:
            return routed
        recorder = self.recorder
        row = recorder.answered(reply, routed)
        waits = written(lambda it: recorder.ledger.add_call(it, together=together), row, call)
        if waits is not None and call.deadline_at_s - self._clock.now_s() < SETTLE_S:
            waits = None  # no time to wait for it; the writer commits it all the same
        recorder.keep_texts(reply, routed)
        recorder.call_hooks(row, routed)
        return Hit(replace(reply, notes=tuple(call.notes)) if call.notes else reply, waits)

    async def aclose(self) -> None:
        """End what is still in flight, wait for its rows and hooks, let go of the worker threads."""
        self._closing = asyncio.Event()
        for task in tuple(self._running):
            task.cancel()
        parts = (self._coalesce, self._helpers_coalesce, self.semantic.plans, self._plans)
        await asyncio.gather(*(part.aclose() for part in parts))
        if self._running:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._closing.wait()
        await self.recorder.aclose()
        self.workers.close()
        self._hook_workers.close()
        self._readers.close()
