"""A whole road on memory stores and fake providers, in virtual time, and what must be true of it at rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from nbllm import Settings, errors
from nbllm.core.messages import Attempt, AttemptStatus, CallRow, Chat, Content, Embed, NullSink, Options, Request, Rung, Sink
from nbllm.core.ports import Filter, Series, UsageRow, Written
from nbllm.core.records import Seen
from nbllm.core.reply import Reply
from nbllm.core.routing import Route, fixed
from nbllm.core.why import Why
from nbllm.pipeline.road import Hit, Parts, Road
from nbllm.pipeline.route import Router
from nbllm.storage.memory import MemoryBudgets, MemoryFlights, MemoryRecordings, MemoryResponseStore, MemoryState
from nbllm.storage.memory_matches import MemoryMatches
from nbllm.testing import FakeProvider
from tests.pipeline.making import clock, rung
from tests.pipeline.nearest import NearestByHand


class Book:
    """A Ledger in memory that notices rows which are closed twice or never opened. trouble: raised by every write."""

    def __init__(self, *, trouble: Exception | None = None, locked_s: float = 0.0) -> None:
        self.calls_by_id: dict[str, CallRow] = {}
        self.attempts_by_id: dict[str, Attempt] = {}
        self.faults: list[str] = []
        self.trouble = trouble
        self.locked_s = locked_s
        self.writes: list[str] = []

    def _written(self, what: str) -> Written:
        self.writes.append(what)
        if not self.locked_s:
            return None
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()
        asyncio.get_running_loop().call_later(self.locked_s, lambda: done.cancelled() or done.set_result(None))
        return done

    def open_call(self, row: CallRow) -> Written:
        if self.trouble is not None:
            raise self.trouble
        assert row.call_id not in self.calls_by_id
        self.calls_by_id[row.call_id] = row
        return self._written("open_call")

    def close_call(self, row: CallRow) -> Written:
        if self.trouble is not None:
            raise self.trouble
        before = self.calls_by_id.get(row.call_id)
        if before is None or before.status is not AttemptStatus.OPEN:
            self.faults.append(f"close_call of {before}")
        self.calls_by_id[row.call_id] = row
        return self._written("close_call")

    def add_call(self, row: CallRow, *, together: bool = False) -> Written:
        if self.trouble is not None:
            raise self.trouble
        assert row.call_id not in self.calls_by_id
        self.calls_by_id[row.call_id] = row
        return self._written("add_call")

    def open_attempt(self, attempt: Attempt) -> Written:
        if self.trouble is not None:
            raise self.trouble
        assert attempt.attempt_id not in self.attempts_by_id
        self.attempts_by_id[attempt.attempt_id] = attempt
        return self._written("open_attempt")

    def close_attempt(self, attempt: Attempt) -> Written:
        if self.trouble is not None:
            raise self.trouble
        before = self.attempts_by_id.get(attempt.attempt_id)
        if before is None or before.status is not AttemptStatus.OPEN:
            self.faults.append(f"close_attempt of {before}")
        self.attempts_by_id[attempt.attempt_id] = attempt
        return self._written("close_attempt")

    def usage(self, by: str, where: Filter) -> Sequence[UsageRow]:
        raise NotImplementedError

    def usages(self, groupings: Sequence[str], where: Filter) -> Sequence[Sequence[UsageRow]]:
        raise NotImplementedError

    def series(self, where: Filter, *, costs: bool = True) -> Series:
        raise NotImplementedError

    def calls(self, where: Filter, *, limit: int) -> Sequence[CallRow]:
        return list(self.calls_by_id.values())[:limit]

    def call(self, call_id: str) -> CallRow | None:
        return self.calls_by_id.get(call_id)

    def key_hashes(self, where: Filter) -> frozenset[str]:
        return frozenset(row.key_hash for row in self.calls_by_id.values() if row.key_hash)

    def attempts(self, call_id: str) -> Sequence[Attempt]:
        return [a for a in self.attempts_by_id.values() if a.call_id == call_id]

    def newest_answers(self, limit: int) -> Sequence[Seen]:
        done = [a for a in self.attempts_by_id.values() if a.status is AttemptStatus.DONE and a.purpose in ("answer", "repair")]
        return [Seen(a.rung, a.latency_s, a.usage.output_tokens) for a in done[-limit:]]

    def attempts_of(self, where: Filter, *, limit: int) -> Sequence[Attempt]:
        return list(self.attempts_by_id.values())

    def spent_usd(self, where: Filter) -> Decimal:
        return sum((a.cost_usd or Decimal(0) for a in self.attempts_by_id.values()), Decimal(0))

    def close(self) -> None:
        pass


@dataclass
class World:
    """One process: its road, what it stands on, and its provider. Made on a running loop."""

    provider: FakeProvider = field(default_factory=FakeProvider)
    providers: Mapping[str, FakeProvider] = field(default_factory=dict)
    endpoints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rungs: Mapping[str, Rung] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    store: Any = field(default_factory=MemoryResponseStore)
    flights: Any = None
    budgets: Any = field(default_factory=MemoryBudgets)
    ledger: Book = field(default_factory=Book)
    index: Any = field(default_factory=NearestByHand)
    matches: MemoryMatches = field(default_factory=MemoryMatches)
    recordings: MemoryRecordings = field(default_factory=MemoryRecordings)
    found: Sequence[str] = ()
    key: str | None = "key"
    session: str = "s"
    jitter: Callable[[], float] = lambda: 0.5
    road: Road = field(init=False)
    discoveries: int = 0

    def __post_init__(self) -> None:
        self.clock = replace(clock(), jitter=self.jitter)
        self.flights = self.flights or MemoryFlights(now=self.clock.epoch_s)
        self.now = Settings().replace_values("test", **{"ladder": ["one/m"], **self.settings})
        self._route: Route | None = None
        self.road = Road(
            Parts(
                settings=lambda: self.now,
                session=self.session,
                router=Router(self._plan, self.rung, self._discover),
                provider_for=lambda at: self.providers.get(at.endpoint_name, self.provider),
                key_of=lambda _: self.key,
                request_bytes=size_bytes,
                store=self.store,
                flights=self.flights,
                ledger=self.ledger,
                recordings=lambda: self.recordings,
                budgets=self.budgets,
                index=self.index,
                matches=self.matches,
                breaker_states=MemoryState(),
                bucket_states=MemoryState(),
                executor=lambda: ThreadPoolExecutor(4, thread_name_prefix="test-check"),
                clock=self.clock,
            )
        )

    def configure(self, **values: Any) -> None:
        """Change settings, as %llm_config does."""
        self.now = self.now.replace_values("test", **values)

    def rung(self, model_id: str) -> Rung:
        if model_id in self.rungs:
            return self.rungs[model_id]
        name, _, model = model_id.partition("/")
        if not model or name == "unknown":
            raise errors.UnknownModel(f"No endpoint answers to {model_id!r}.")
        return rung(name, model, **self.endpoints.get(name, {}))

    def _plan(self, named: tuple[str, ...]) -> Route | None:
        return fixed(named, routes=self.now.routes, model=self.now.model, ladder=self.now.ladder, found=self._route)

    async def _discover(self) -> tuple[Route, bool]:
        if self._route is not None:
            return self._route, False
        self.discoveries += 1
        await asyncio.sleep(0.3)
        first, self._route = self._route is None, Route(tuple(self.found), Why(reason="found on this machine"))
        return self._route, first

    # ------------------------------------------------------------------ calls

    def request(self, text: str = "hello", *models: str, content: Content | None = None, **options: Any) -> Request:
        """An unopened request; chat content and options by their own names."""
        names = set(Chat.__struct_fields__) & set(options)
        chat = {name: options.pop(name) for name in names}
        content = content or Chat(**{"messages": ({"role": "user", "content": text},), **chat})
        return Request(content=content, options=Options(**options), models=models)

    async def ask(self, text: str = "hello", *models: str, sink: Sink | None = None, **options: Any) -> Reply:
        """One call down the road."""
        return await self.road(self.request(text, *models, **options), sink or NullSink())

    def start(self, text: str = "hello", *models: str, sink: Sink | None = None, **options: Any) -> asyncio.Task[Reply]:
        """The same as a task."""
        return asyncio.get_running_loop().create_task(self.ask(text, *models, sink=sink, **options))

    async def door(self, text: str = "hello", *models: str, sink: Sink | None = None, **options: Any) -> Reply:
        """One call as the doors make it: the fast way for hits first."""
        opened = self.road.try_hit(self.request(text, *models, **options))
        return opened.reply if isinstance(opened, Hit) else await self.road(opened, sink or NullSink())

    # ------------------------------------------------------------------ what must be true

    def spent(self, scope: str | None = None) -> Decimal:
        """What is booked on a scope, the session's unless it is named."""
        balance = self.budgets._balances.get(scope or f"session:{self.session}")
        return balance.spent_usd if balance else Decimal(0)

    def reserved(self) -> dict[str, Decimal]:
        """What is reserved where, zeros left out."""
        return {name: b.reserved_usd for name, b in self.budgets._balances.items() if b.reserved_usd}

    async def check_rest(self) -> None:
        """I1, I3, I4, I5 and I7 at rest."""
        await asyncio.sleep(0.2)
        assert self.ledger.faults == []
        for row in (*self.ledger.calls_by_id.values(), *self.ledger.attempts_by_id.values()):
            assert row.status not in (AttemptStatus.OPEN, AttemptStatus.UNKNOWN), row
        for attempt in self.ledger.attempts_by_id.values():
            assert attempt.sent is not None
            assert attempt.cost_usd is not None or attempt.cost_basis == "unknown"
            assert attempt.call_id in self.ledger.calls_by_id
        assert self.reserved() == {}
        for provider in {id(p): p for p in (self.provider, *self.providers.values())}.values():
            assert provider.in_flight == 0
        for entry in self.store.entries():
            assert entry.answer["finish_reason"] in ("stop", "tool_calls")
            assert entry.answer["text"] or entry.answer.get("message") or entry.answer.get("vectors")
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    async def close(self) -> None:
        """Close the road; nothing may be left."""
        await self.road.aclose()
        await self.check_rest()


def size_bytes(content: Content) -> int:
    """As many bytes as the content has as JSON."""
    return len(json.dumps(content.texts if isinstance(content, Embed) else content.messages))


async def outcome(work: Coroutine[Any, Any, Reply] | asyncio.Task[Reply]) -> Reply | BaseException:
    """The reply, or what was raised instead."""
    try:
        return await work
    except (Exception, asyncio.CancelledError) as exc:
        return exc


async def failure(world: World, **options: Any) -> tuple[BaseException, float]:
    """What the first cause was, and after how long it came."""
    began = now_s()
    result = await outcome(world.ask("q", **{"retries": 0, "watched": True, **options}))
    assert isinstance(result, BaseException), result
    if isinstance(result, errors.AllRungsFailed):
        return result.exceptions[0], now_s() - began
    return result, now_s() - began


def now_s() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


TWO = ("one/m", "two/m")


def pair(first: Any, second: Any = "from the second", **more: Any) -> World:
    """A world of two rungs, on a provider each; each gives its one answer always."""
    return World(providers={"one": FakeProvider(default=first), "two": FakeProvider(default=second)}, **more)


Make = Callable[[], World]
