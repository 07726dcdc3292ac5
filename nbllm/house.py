"""What stands behind an open client: storage, catalog, providers and the road on them. Made on the first call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.background import LoopHost
from nbllm.core.breaker import BreakerState
from nbllm.core.messages import Request, Rung, Sink
from nbllm.core.ports import Provider, Written
from nbllm.core.reply import Reply
from nbllm.core.routing import Route, fixed
from nbllm.core.throttle import BucketState
from nbllm.core.why import Why
from nbllm.errors import CallFailed, ConfigurationError, NbllmError
from nbllm.flow_context import ONLOOKERS, Onlooker, RunEnds, origin_now, recorded_flow
from nbllm.pipeline.road import Parts, Road
from nbllm.pipeline.route import Router
from nbllm.pipeline.stage import SETTLE_S, looked_at, settle_now
from nbllm.providers.catalog import Catalog
from nbllm.providers.hosts import headers_for, key_for
from nbllm.providers.pool import Providers
from nbllm.providers.wire import request_bytes
from nbllm.settings import Endpoint, Settings
from nbllm.settings.strategies import models_of
from nbllm.storage.memory import MemoryState
from nbllm.storage.open import open_storage

if TYPE_CHECKING:
    from nbllm.storage.redis_shared import Shared


class ModelSeen(NamedTuple):
    """How a model stands ("closed", "half open", "open", "off"), and the room under its limits just now, None without limits."""

    endpoint: str
    model: str
    standing: str
    requests_left: int | None
    tokens_left: int | None


class House:
    """Everything that a client opens, and closes again."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        session: str,
        host: LoopHost,
        lent: bool,
        providers: Mapping[str, Provider],
        on_trouble: Callable[[str], object],
        executor: Callable[[], Executor],
        shared: Shared | None = None,
    ) -> None:
        self.host = host
        self.lent = lent
        self._settings = settings
        self._fakes = dict(providers)
        now = settings()
        self.catalog = Catalog(now.endpoints, os.environ)
        self.pool = Providers(os.environ)
        self.storage = open_storage(
            now.home,
            session=session,
            cache_size_bytes=int(now.cache_size_mb * 1_000_000),
            recordings_days=now.recordings_days,
            recordings_bytes=int(now.recordings_mb * 1_000_000),
            on_trouble=on_trouble,
        )
        self._shared = shared
        if shared is not None:
            self.storage = replace(self.storage, store=shared.store, flights=shared.flights, budgets=shared.budgets)
        self._closing = False
        self._found: Route | None = None
        self._found_endpoints: dict[str, Endpoint] = {}
        self._finding: asyncio.Lock | None = None
        self.road = Road(self._parts(session, executor))

    def _parts(self, session: str, executor: Callable[[], Executor]) -> Parts:
        """Return everything the road stands on."""
        settings, shared, ends = self._settings, self._shared, RunEnds(lambda: self.storage.recordings)
        return Parts(
            settings=settings,
            session=session,
            router=Router(self._plan, self._rung, self._discover),
            provider_for=self._provider_for,
            key_of=_key_of,
            request_bytes=request_bytes,
            store=self.storage.store,
            flights=self.storage.flights,
            ledger=self.storage.ledger,
            recordings=lambda: self.storage.recordings,
            budgets=self.storage.budgets,
            index=self.storage.index,
            matches=self.storage.matches,
            breaker_states=MemoryState[BreakerState]() if shared is None else shared.breaker_states,
            bucket_states=MemoryState[BucketState]() if shared is None else shared.bucket_states,
            executor=executor,
            flow=lambda: recorded_flow(ends) if settings().recordings else None,
            origin=origin_now,
            onlookers=ONLOOKERS,
        )

    def settings_changed(self, settings: Settings) -> None:
        """Take in other endpoints; what was switched off is on again. A server that was found stays found."""
        self.catalog = self._catalog(settings)
        self.road.breakers.settings_changed()

    def settle(self, written: Written) -> None:
        """Wait, on the caller's own thread, for a row that a busy ledger has handed to its writer."""
        settle_now(written)

    async def asettle(self, written: Written) -> None:
        """Wait for the same on the caller's own loop."""
        if isinstance(written, asyncio.Future):
            written = await written  # the loop's next turn
        if isinstance(written, Future):
            row = asyncio.wrap_future(written)
            row.add_done_callback(looked_at)
            await asyncio.wait([row], timeout=SETTLE_S)

    # ------------------------------------------------------------------ calls, and the end of them

    async def call(self, request: Request, sink: Sink) -> Reply:
        """Send a request down the road. CallFailed when the client is closed meanwhile."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        cancelled_before = task.cancelling()
        if self._is_closing():
            raise _closed(request)
        looked_at = _LookedAt(self.host, task, self._settings().home) if ONLOOKERS else None
        try:
            return await self.road(request, sink if looked_at is None else looked_at.begun(request, sink))
        except asyncio.CancelledError:
            stopped = looked_at is not None and looked_at.stopped
            if (self._is_closing() or stopped) and task.uncancel() <= cancelled_before:
                raise _stopped(request) if stopped else _closed(request) from None
            raise
        finally:
            if looked_at is not None:
                looked_at.over(request)

    def _is_closing(self) -> bool:
        return self._closing

    async def aclose(self) -> None:
        """End what is in flight, then close the sockets."""
        self._closing = True
        await self.road.aclose()
        await self.pool.aclose()
        for fake in self._fakes.values():
            await fake.aclose()
        if self._shared is not None:
            await self._shared.aclose()

    async def standing(self) -> dict[str, str]:
        """Return how each model that the settings name, or that was found, stands (Client.astanding)."""
        return {model_id: await self._standing(model_id) for model_id in dict.fromkeys(self._named())}

    def _named(self) -> list[str]:
        now = self._settings()
        named = [*((now.model,) if now.model else ()), *now.ladder, *(found.models if (found := self._found) else ())]
        ids = [model for name in named for model in models_of(name, now.routes)]
        return ids + [model for name in now.routes for model in models_of(name, now.routes)]

    def rungs(self, more: Iterable[str]) -> list[tuple[str, Rung]]:
        """Return the models that the settings name, or that were found, and more of them, as far as they are known now.

        On the caller's own thread: the first may read the price list, which takes a moment.
        """
        known = []
        for model_id in dict.fromkeys([*self._named(), *more]):
            with suppress(NbllmError):  # of settings that have changed since it was asked
                known.append((model_id, self._rung(model_id)))
        return known

    async def models_seen(self, rungs: Sequence[tuple[str, Rung]]) -> list[ModelSeen]:
        """Return how models stand, with the room under their limits."""
        room = self.road.throttles.room
        return [
            ModelSeen(rung.endpoint_name, rung.model, await self._standing(model_id), *await room(rung)) for model_id, rung in rungs
        ]

    async def _standing(self, model_id: str) -> str:
        try:
            rung = self._rung(model_id)
            if rung.provider == "openai_compatible":  # others look for their keys themselves
                key_for(rung.endpoint_name, rung.endpoint, os.environ)
        except NbllmError:
            return "off"
        return await self.road.breakers.standing(rung)

    # ------------------------------------------------------------------ what the road asks for

    def _catalog(self, settings: Settings) -> Catalog:
        return Catalog({**self._found_endpoints, **settings.endpoints}, os.environ)

    def _rung(self, model_id: str) -> Rung:
        return self.catalog.rung(model_id)

    def _provider_for(self, rung: Rung) -> Provider:
        return self._fakes.get(rung.provider) or self.pool.get(rung)

    def _plan(self, named: tuple[str, ...]) -> Route | None:
        now = self._settings()
        return fixed(named, routes=now.routes, model=now.model, ladder=now.ladder, found=self._found)

    async def _discover(self) -> tuple[Route, bool]:
        """Find a default model, once a session; the caller that found it shows it."""
        from nbllm.providers.discovery import discover

        if not self._settings().discover:
            raise ConfigurationError(
                "No model is named, and looking for one is switched off (discover = false). Nothing was sent.",
                hint="Give model=, or set model or ladder.",
            )
        if self._finding is None:
            self._finding = asyncio.Lock()
        async with self._finding:
            if self._found is not None:
                return self._found, False
            found = await discover(self._settings(), os.environ)
            if found.endpoint is not None:
                self._found_endpoints[found.model_id.partition("/")[0]] = found.endpoint
                self.catalog = self._catalog(self._settings())
            self._found = Route((found.model_id,), Why(reason=found.reason))
            return self._found, True


class _LookedAt:
    """One call on its way, and who looks on."""

    def __init__(self, host: LoopHost, task: asyncio.Task[Any], home: Path) -> None:
        self.stopped = False
        self._host = host
        self._task = task
        self._home = home
        self._onlookers: tuple[Onlooker, ...] = ()

    def begun(self, request: Request, sink: Sink) -> Sink:
        self._onlookers = tuple(ONLOOKERS)
        for onlooker in self._onlookers:
            sink = onlooker.begun(request, sink, self._stop, self._home)
        return sink

    def over(self, request: Request) -> None:
        for onlooker in self._onlookers:
            onlooker.over(request)
        self._onlookers = ()

    def _stop(self) -> None:
        self._host.mailbox.post(self._cancel)

    def _cancel(self) -> None:
        # Once, however often somebody asks; and not after it has come back: the task may do something else by now.
        if self._onlookers and not self.stopped:
            self.stopped = self._task.cancel()


def _stopped(request: Request) -> CallFailed:
    return _ended(request, CallFailed("Stopped from the panel.", partial=request.call.partial if request.call else None))


def _closed(request: Request) -> CallFailed:
    call = request.call
    error = CallFailed(
        "The client was closed while this call was under way.", partial=call.partial if call else None, hint="Make another client."
    )
    return _ended(request, error)


def _ended(request: Request, error: CallFailed) -> CallFailed:
    call = request.call
    if call is not None:
        error.call_id, error.spent_usd = call.call_id, call.spent()[0]
    return error


def _key_of(rung: Rung) -> str | None:
    """Return the key and headers that a rung would be called with, to see whether they changed since it was refused."""
    name, endpoint = rung.endpoint_name, rung.endpoint
    try:
        key = key_for(name, endpoint, os.environ)
        return "\n".join((key or "", *headers_for(name, endpoint, os.environ).values())) if endpoint.headers else key
    except NbllmError:
        return None
