"""Corners where several things happen at once: cancelled leases, rolled-back batches, many threads, calls that nobody answered."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from dataclasses import replace

import numpy as np
import pytest

from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Filter
from nbllm.core.statistics import check_slo, summarise
from nbllm.errors import StorageError
from nbllm.storage.open import open_storage
from tests.storage.rows import call, open_call


@pytest.fixture
def storage(tmp_path):
    made = open_storage(tmp_path / "home", session="s")
    yield made
    made.close()


def test_a_lease_that_a_cancelled_caller_asked_for_is_free(storage, tmp_path):
    """The statement waits behind a lock, its caller is cancelled: nobody may have to wait for a lease that nobody holds."""

    async def run() -> None:
        await storage.flights.release(await storage.flights.lead("other", lease_s=10))
        storage.flights._db.flush()
        blocker = sqlite3.connect(tmp_path / "home" / "state.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        asking = asyncio.ensure_future(storage.flights.lead("k", lease_s=1000))
        await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await storage.flights.lead("k", lease_s=1000) is not None

    asyncio.run(run())


def test_calls_that_no_model_answered_are_in_no_percentile(storage):
    """Errors, cancelled calls, and what a stale or static answer rescued count as failed; calls under way count not at all."""
    done = replace(call(), status=AttemptStatus.DONE, source="model", latency_s=2.0)
    rows = [
        done,
        replace(call(), status=AttemptStatus.CANCELLED, latency_s=0.01),
        replace(call(), status=AttemptStatus.FAILED, latency_s=0.01),
        replace(call(), status=AttemptStatus.DONE, source="static", latency_s=0.001),
        replace(call(), status=AttemptStatus.DONE, source="stale", latency_s=0.001),
        replace(call(), status=AttemptStatus.DONE, source="cache", latency_s=0.0001),
    ]
    for row in rows:
        storage.ledger.add_call(row)
    storage.ledger.open_call(open_call())
    series = storage.ledger.series(Filter())
    assert len(series.latency_s) == 6
    assert summarise(series).n == 1
    assert summarise(series).p50_s == 2.0
    report = check_slo(series, error_rate=0.5)
    assert not report.ok
    assert np.count_nonzero(series.hit) == 1


def test_a_rolled_back_batch_teaches_nothing(storage):
    """A job that fails rolls its batch back: rows that are run again must not refer to what was rolled back."""
    storage.ledger._db.write(lambda _: None)
    lock = storage.ledger._db._lock
    with lock:  # both wait for the thread, and become one batch
        bad = storage.ledger._db.defer(_refuse)
        row = call()
        queued = storage.ledger.add_call(row)
    with pytest.raises((StorageError, ValueError)):
        bad.result(5)
    assert queued is not None
    queued.result(5)
    assert [r.call_id for r in storage.ledger.calls(Filter(), limit=5)] == [row.call_id]
    con = sqlite3.connect(storage.ledger._db.path)
    (numbers,) = con.execute("SELECT count(*) FROM processes").fetchone()
    con.close()
    assert numbers == 1


def test_many_threads_remember_more_calls_than_are_kept(storage):
    """Threads that add rows while the oldest ones are forgotten never get in each other's way."""
    ledger, errors = storage.ledger, []

    def add(name: int) -> None:
        try:
            for number in range(6000):
                ledger._remember(f"{name}:{number}", number)
        except RuntimeError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def _refuse(_: sqlite3.Connection) -> None:
    raise ValueError("no")
