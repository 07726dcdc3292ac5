"""Processes on one Redis, each with a link of its own: what the conformance suites call a world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from nbllm.storage.redis_link import Link
from tests.redis_server import RedisServer
from tests.service.conformance_idempotency import Clock

T = TypeVar("T")
Store = TypeVar("Store")


class RedisWorld(Generic[Store]):
    """make: a store from its process's link and the clock. lapse: let one lease of a process that died lapse, on Redis itself."""

    def __init__(
        self, server: RedisServer, make: Callable[[Link, Clock], Store], asks: str, lapse: Callable[[RedisServer, Link, Any], None]
    ) -> None:
        server.flush()
        self.server = server
        self.clock = Clock()
        self._make, self._asks, self._lapse = make, asks, lapse
        self._links: dict[Store, Link] = {}
        self._leases: dict[Store, list[Any]] = {}
        self._runner = asyncio.Runner()

    def open(self) -> Store:
        link = Link(self.server.url)
        store = self._make(link, self.clock)
        self._links[store] = link
        leases = self._leases[store] = []
        ask = getattr(store, self._asks)

        async def asked(*args: Any, **more: Any) -> Any:
            got = await ask(*args, **more)
            leases.append(got)
            return got

        setattr(store, self._asks, asked)
        return store

    def crash(self, store: Store) -> None:
        """A process that died renews nothing: its leases lapse."""
        for lease in self._leases[store]:
            self._lapse(self.server, self._links[store], lease)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self._runner.close()
