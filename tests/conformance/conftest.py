"""Each port, once per backend. A new backend is one more name in BACKENDS and one more branch in `backend`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nbllm.core.ports import BudgetStore, Flights, Recordings, ResponseStore
from nbllm.storage.home import Home
from nbllm.storage.memory import MemoryBudgets, MemoryFlights, MemoryRecordings, MemoryResponseStore
from nbllm.storage.open import open_storage
from tests.redis_server import RedisServer

BACKENDS = ("disk", "memory", "redis")


class Clock:
    """A Unix time that tests move."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Backend:
    store: ResponseStore
    flights: Flights
    budgets: BudgetStore
    recordings: Recordings | None
    clock: Clock


@pytest.fixture(params=BACKENDS)
def backend(request, tmp_path) -> Iterator[Backend]:
    clock = Clock()
    if request.param == "memory":
        yield Backend(MemoryResponseStore(), MemoryFlights(now=clock), MemoryBudgets(), MemoryRecordings(), clock)
        return
    if request.param == "redis":
        yield on_redis(request.getfixturevalue("redis_server"), clock)
        return
    from nbllm.storage.flights import SqliteFlights
    from nbllm.storage.state import state_database

    storage = open_storage(tmp_path / "home", session="s")
    home = Home(tmp_path / "home")
    flights = SqliteFlights(home, state_database(home), now=clock)
    yield Backend(storage.store, flights, storage.budgets, storage.recordings, clock)
    flights.close()
    home.close()
    storage.close()


def on_redis(server: RedisServer, clock: Clock) -> Backend:
    """Return the ports on an empty Redis. Recordings, and the ledger, are each machine's own."""
    from nbllm.storage.redis_flights import RedisFlights
    from nbllm.storage.redis_shared import open_shared

    server.flush()
    shared = open_shared(server.url)
    return Backend(shared.store, RedisFlights(shared.link, now=clock), shared.budgets, None, clock)
