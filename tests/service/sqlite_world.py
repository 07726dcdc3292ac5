"""Processes on one home, each a Home with a lock and a Database of its own: what the conformance suites call a world."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import unittest
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine

from nbllm.service.embedded import service_database
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database
from tests.service.conformance_idempotency import Clock

T = TypeVar("T")
Store = TypeVar("Store")


class World(Generic[Store]):
    """make: a store from its process's home and database, and the clock."""

    def __init__(self, make: Callable[[Home, Database, Clock], Store], folder: Path | None = None) -> None:
        self._made = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="nbllm-service-"))
        self.clock = Clock()
        self.homes: dict[Store, Home] = {}
        self._make = make
        self._databases: list[Database] = []
        self._runner = asyncio.Runner()

    def open(self) -> Store:
        home = Home(self.folder)
        database = service_database(home)
        self._databases.append(database)
        store = self._make(home, database, self.clock)
        self.homes[store] = home
        assert home.token
        return store

    def crash(self, store: Store) -> None:
        """The system frees the lock of a process that died; its file stays open here, which changes nothing."""
        self.homes[store].close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        for database in self._databases:
            database.close()
        for home in self.homes.values():
            home.close()
        self._runner.close()
        if self._made:
            shutil.rmtree(self.folder)


def sqlite_world(make: Callable[[Home, Database, Clock], Store]) -> Callable[[Path], Iterator[World[Store]]]:
    """Return the fixture `world` of tests of a store."""

    @pytest.fixture
    def world(tmp_path: Path) -> Iterator[World[Store]]:
        made = World(make, tmp_path / "home")
        yield made
        made.close()

    return world


def machine_on_sqlite(
    machine: type[RuleBasedStateMachine], make: Callable[[Home, Database, Clock], Store]
) -> type[unittest.TestCase]:
    """Return the test of a suite's machine, for a store; any order of events is as its model has it."""
    of_this: type[RuleBasedStateMachine] = type("Machine", (machine,), {"make_world": staticmethod(lambda: World(make))})
    test: type[unittest.TestCase] = of_this.TestCase
    test.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)  # type: ignore[attr-defined]  # Hypothesis's own
    return test
