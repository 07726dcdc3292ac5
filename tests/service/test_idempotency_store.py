"""The IdempotencyStore of one machine: the conformance suite, and what only a file can do."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from nbllm.errors import StorageError
from nbllm.service.idempotency_store import SqliteIdempotency
from nbllm.service.ports import Blocked, Claim, Stored
from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database
from tests.service.conformance_idempotency import KEEP_S, MOST_KEPT_BYTES, OK, Clock, IdempotencyConformance
from tests.service.idempotency_machine import IdempotencyMachine
from tests.service.sqlite_world import World, machine_on_sqlite, sqlite_world


def make(home: Home, database: Database, clock: Clock) -> SqliteIdempotency:
    return SqliteIdempotency(home, database, keep_s=KEEP_S, most_kept_bytes=MOST_KEPT_BYTES, now=clock)


world = sqlite_world(make)


class TestSqlite(IdempotencyConformance):
    """The suite on SQLite."""


TestMachine = machine_on_sqlite(IdempotencyMachine, make)


def test_a_locked_file_lets_nothing_run(world: World[SqliteIdempotency], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be known whether a key was used, the request is refused; afterwards its key is as before."""
    monkeypatch.setattr("nbllm.service.idempotency_store.WAIT_S", 0.05)
    store = world.open()
    world.run(store.begin("caller", "first", "f"))
    lock = sqlite3.connect(world.folder / "service.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError):
        world.run(store.begin("caller", "key", "f"))
    lock.execute("COMMIT")
    lock.close()
    assert isinstance(world.run(store.begin("caller", "key", "f")), Claim)


def test_an_outcome_that_cannot_be_kept(world: World[SqliteIdempotency], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the answer is delivered by whoever has it; the key then says that its outcome is unknown, not "in flight"."""
    store = world.open()
    claim = world.run(store.begin("caller", "key", "f"))
    assert isinstance(claim, Claim)

    async def full(*_: Any, **__: Any) -> None:
        raise StorageError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(store._db, "run", full)
        with pytest.raises(StorageError):
            world.run(store.finish(claim, OK))
    assert world.run(store.begin("caller", "key", "f")) is Blocked.UNKNOWN
    assert isinstance(world.run(store.begin("caller", "key", "f", again=True)), Claim)


def test_a_request_that_is_given_up_while_it_asks(world: World[SqliteIdempotency]) -> None:
    """A claim that nobody took up is dropped."""
    store = world.open()

    async def main() -> None:
        world.homes[store].open_calls = {"one", "two"}  # so that the transaction waits for the loop's next turn
        task = asyncio.ensure_future(store.begin("caller", "key", "f"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store._db.flush()
        assert isinstance(await store.begin("caller", "key", "f"), Claim)

    world.run(main())


def test_what_is_kept_is_private(world: World[SqliteIdempotency]) -> None:
    """The file is the user's alone, and what is released is overwritten."""
    store = world.open()
    claim = world.run(store.begin("caller", "key", "f"))
    assert isinstance(claim, Claim)
    world.run(store.finish(claim, Stored(200, (), b"a very private answer")))
    path = world.folder / "service.db"
    assert path.stat().st_mode & 0o077 == 0
    world.clock.now += KEEP_S + 1
    world.run(store.begin("caller", "other", "f"))
    store._db.close()
    assert b"a very private answer" not in path.read_bytes()
