"""The vector index on one home: whom it keeps waiting, and what closing does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time

import pytest

from nbllm.errors import StorageError
from nbllm.storage import vector_rows
from nbllm.storage.home import Home
from tests.storage.locking import locked
from tests.storage.vector_making import VECTORS, filled, found_all, keys, opened, row, run


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    home.close()


def test_a_locked_file_keeps_no_loop_waiting(home):
    """While another program holds the lock, an add waits on its own, others run, searches go on; then the row is there."""
    index = opened(home)
    run(index.add(row("first", VECTORS[0])))

    async def while_locked() -> list[float]:
        gaps, adding = [], asyncio.ensure_future(index.add(row("second", VECTORS[1])))
        for _ in range(20):
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            gaps.append(time.perf_counter() - began)
        assert not adding.done()
        assert keys(await index.nearest("p", VECTORS[0])) == ["first"]
        other.execute("ROLLBACK")
        await adding
        assert keys(await index.nearest("p", VECTORS[1])) == ["second"]
        return gaps

    other = sqlite3.connect(home.path / "vectors.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    gaps = run(while_locked())
    other.close()
    assert sorted(gaps)[len(gaps) // 2] < 0.05
    index.close()


def test_a_file_that_stays_locked_is_a_storage_error(home, monkeypatch):
    """After the time that a caller may wait; it goes on without."""
    monkeypatch.setattr("nbllm.storage.vectors.ADD_WAIT_S", 0.05)
    index = opened(home)
    run(index.add(row("first", VECTORS[0])))
    with locked(home.path / "vectors.db"), pytest.raises(StorageError, match="locked"):
        run(index.add(row("second", VECTORS[1])))
    index.close()


def test_nobody_waits_for_a_large_index_to_be_loaded(home, monkeypatch):
    """After its patience a search says that it did not look; ten that ask meanwhile share one loading, and then all find it."""
    filled(home).close()
    index = opened(home, patience_s=0.05)
    loads, go_on = [], threading.Event()
    real = index._loaded.load

    def slow(*arguments):
        loads.append(arguments[0])
        assert go_on.wait(30)
        return real(*arguments)

    monkeypatch.setattr(index._loaded, "load", slow)

    async def ask() -> None:
        asked = [index.nearest("p", VECTORS[number]) for number in range(10)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, StorageError) and "not loaded within 0.05 s" in str(one) for one in outcomes)
        go_on.set()
        while True:
            try:
                assert keys(await index.nearest("p", VECTORS[7], 1)) == ["k7"]
            except StorageError:
                continue
            return

    run(ask())
    assert loads == ["p"]
    index.close()


def test_a_loading_that_failed_is_tried_again(home, monkeypatch):
    """Whoever waited gets the error, the next one the rows."""
    filled(home).close()
    index = opened(home)
    real, failures = index._loaded.load, [StorageError("once")]
    monkeypatch.setattr(index._loaded, "load", lambda *given: _raise(failures.pop()) if failures else real(*given))
    with pytest.raises(StorageError, match="once"):
        run(index.nearest("p", VECTORS[7]))
    assert keys(run(index.nearest("p", VECTORS[7], 1))) == ["k7"]
    index.close()


def _raise(error: Exception) -> None:
    raise error


def test_closing_does_not_wait_for_a_loading(home, monkeypatch):
    """It stops between two slices of rows, and whoever waited for it is told; no thread is left."""
    filled(home).close()
    index = opened(home)
    begun, slices = threading.Event(), []
    real = vector_rows.vectors

    def slow(*arguments):
        slices.append(1)
        begun.set()
        while not index._stopping:
            time.sleep(0.001)
        return real(*arguments)

    monkeypatch.setattr(vector_rows, "vectors", slow)

    async def ask_and_close() -> None:
        asking = asyncio.ensure_future(index.nearest("p", VECTORS[7]))
        await asyncio.to_thread(begun.wait, 20)
        await asyncio.to_thread(index.close)
        with pytest.raises(StorageError, match="closed"):
            await asking

    run(ask_and_close())
    assert slices == [1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nbllm-vectors")]


def test_a_closed_index_says_so(home):
    """No use after close, and no thread is left of it."""
    index = filled(home)
    index.close()
    with pytest.raises(StorageError, match="closed"):
        run(index.nearest("p", VECTORS[0]))
    with pytest.raises(StorageError, match="closed"):
        run(index.add(row("k", VECTORS[0])))


def test_a_home_that_vanished_begins_anew(home):
    """What was in memory is not found any more: its rows are gone."""
    index = filled(home)
    found_all(index)
    assert home.token
    moved = home.path.with_name("moved")
    home.path.rename(moved)
    assert home.begin_anew()
    assert run(index.nearest("p", VECTORS[0])) == []
    run(index.add(row("new", VECTORS[0])))
    assert keys(run(index.nearest("p", VECTORS[0]))) == ["new"]
    index.close()
