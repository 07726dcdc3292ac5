"""Corners where several things happen at once: cancelled leases, rolled-back batches, many threads, calls that nobody answered."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from decimal import Decimal

import numpy as np
import pytest
from msgspec.structs import replace

from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Filter, Scope
from nbllm.core.statistics import check_slo, summarise
from nbllm.errors import BudgetExceeded
from nbllm.storage.open import open_storage
from nbllm.storage.writer import Job, Refused
from tests.storage.locking import locked
from tests.storage.rows import call, open_call


@pytest.fixture
def storage(tmp_path):
    made = open_storage(tmp_path / "home", session="s")
    yield made
    made.close()


@pytest.mark.parametrize("crowd", [set(), {"one", "two"}], ids=["alone", "in a crowd"])
def test_a_lease_that_a_cancelled_caller_asked_for_is_free(storage, tmp_path, crowd):
    """The statement waits behind a lock, its caller is cancelled: nobody may have to wait for a lease that nobody holds."""
    storage.home.open_calls = crowd  # of a crowd what is alike goes together: what undoes it must still come after it

    async def run() -> None:
        await storage.flights.release(await storage.flights.lead("other", lease_s=10))
        storage.flights._db.flush()
        with locked(tmp_path / "home" / "state.db"):
            asking = asyncio.ensure_future(storage.flights.lead("k", lease_s=1000))
            await asyncio.sleep(0.02)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert await storage.flights.lead("k", lease_s=1000) is not None

    asyncio.run(run())


@pytest.mark.parametrize("crowd", [set(), {"one", "two"}], ids=["alone", "in a crowd"])
def test_a_reservation_that_a_cancelled_caller_asked_for_is_given_back(storage, tmp_path, crowd):
    """So it is with money: what nobody will settle is not held."""
    storage.home.open_calls = crowd

    async def run() -> None:
        scope = [Scope("s", Decimal(10))]
        await storage.budgets.settle("first", scope, Decimal(1))
        storage.budgets._db.flush()
        with locked(tmp_path / "home" / "state.db"):
            asking = asyncio.ensure_future(storage.budgets.reserve("x", scope, Decimal(9)))
            await asyncio.sleep(0.02)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        storage.budgets._db.flush()
        balance = (await storage.budgets.balance(["s"]))["s"]
        assert (balance.spent_usd, balance.reserved_usd) == (Decimal(1), Decimal(0))

    asyncio.run(run())


def test_a_lease_taken_from_the_dead_for_a_cancelled_caller_is_free(storage, tmp_path):
    """The second statement, which takes over from a process that ended, is undone like the first."""
    dead = open_storage(tmp_path / "home", session="s")

    async def run() -> None:
        await dead.flights.lead("k", lease_s=1000)
        dead.close()
        taken, ask = storage.flights._db.run, []

        async def queued_the_second_time(run, *, wait_s, **_):
            ask.append(run)
            if len(ask) == 1:
                return await taken(run, wait_s=wait_s)
            return await asyncio.wrap_future(storage.flights._db.defer(run))

        storage.flights._db.run = queued_the_second_time
        asking = asyncio.ensure_future(storage.flights.lead("k", lease_s=1000))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(ask) == 2
        del storage.flights._db.run
        storage.flights._db.flush()
        assert await storage.flights.lead("k", lease_s=1000) is not None

    asyncio.run(run())


def test_leases_of_one_turn_are_taken_as_one_after_the_other(storage, tmp_path):
    """Free ones, one that two callers want, one that expired and one that another process holds, asked for at once."""
    other = open_storage(tmp_path / "home", session="s")
    storage.home.open_calls = {"one", "two"}  # so that what is written waits for the loop's next turn

    async def run() -> None:
        expired, held = await other.flights.lead("expired", lease_s=-1), await other.flights.lead("held", lease_s=1000)
        for free in (True, False):
            got = await asyncio.gather(*(storage.flights.lead(key, lease_s=1000) for key in ("a", "b")))
            assert [lease is not None for lease in got] == [free, free]
        keys = ("c", "expired", "twice", "twice", "held", "d")
        got = await asyncio.gather(*(storage.flights.lead(key, lease_s=1000) for key in keys))
        assert [lease is not None for lease in got] == [True, True, True, False, False, True]
        assert got[1].fence > expired.fence
        assert await other.flights.holds(held)
        assert not await other.flights.holds(expired)
        assert all([await storage.flights.holds(lease) for lease in got if lease is not None])

    asyncio.run(run())
    other.close()


def test_a_reservation_that_came_to_nothing_is_not_remembered(storage, tmp_path):
    """Refused or cancelled ids are of no more use: a long session must not collect them."""

    async def run() -> None:
        with pytest.raises(BudgetExceeded):
            await storage.budgets.reserve("refused", [Scope("s", Decimal(1))], Decimal(2))
        with locked(tmp_path / "home" / "state.db"):
            asking = asyncio.ensure_future(storage.budgets.reserve("cancelled", [Scope("s")], Decimal(1)))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert not storage.budgets._reserved

    asyncio.run(run())


def test_bookings_after_a_damaged_file_was_set_aside_are_kept(storage):
    """What waited to be booked goes with the old file; what comes later is booked in the new one."""

    async def run() -> None:
        scopes = [Scope("s")]
        await storage.budgets.settle("first", scopes, Decimal(1))
        await storage.budgets.balance(["s"])
        await storage.budgets.settle("lost", scopes, Decimal(1))
        database = storage.budgets._db
        with database._lock:
            database._transactions.set_aside()
        for number in range(3):
            await storage.budgets.settle(f"later{number}", scopes, Decimal(1))
        assert (await storage.budgets.balance(["s"]))["s"].spent_usd == 3

    told = []
    storage.budgets._db._troubles._on_trouble = told.append
    asyncio.run(run())
    assert "was damaged" in told[0]


@pytest.mark.parametrize("failing", ["store", "recordings", "budgets", "ledger"])
def test_one_part_that_fails_to_close_leaves_no_other_open(storage, monkeypatch, failing):
    """Every other part is closed, the run lock too; the error is still told."""
    token = storage.home.token

    def fail() -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as broken:
        broken.setattr(getattr(storage, failing), "close", fail)
        with pytest.raises(RuntimeError, match="no"):
            storage.close()
    parts = {"store", "recordings", "budgets", "ledger"} - {failing}
    assert all(getattr(storage, name)._db._closed for name in parts)
    assert not (storage.home.data / "run" / f"{token}.lock").exists()


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
    (total,) = storage.ledger.usage("total", Filter())
    assert (total.calls, total.failed, total.hits) == (7, 4, 1)


def test_a_dead_model_behind_static_answers_is_seen(storage):
    """Ten calls that only a static answer saved: every one failed, and no latency is claimed for the model."""
    for _ in range(10):
        storage.ledger.add_call(replace(call(), status=AttemptStatus.DONE, source="static", latency_s=0.0009))
    series = storage.ledger.series(Filter())
    assert summarise(series).n == 0
    assert summarise(series, "hits").n == 0
    rate, p50 = check_slo(series, error_rate=1.0, p50_s=1.0).criteria[::-1]
    assert rate.measured == 1.0
    assert p50.measured is None


def test_a_rolled_back_batch_teaches_nothing(storage):
    """A job that fails rolls its batch back: rows that are run again must not refer to what was rolled back."""
    storage.ledger._db.write(lambda _: None)
    begun, go = threading.Event(), threading.Event()
    storage.ledger._db.defer(lambda _: (begun.set(), go.wait(30)))
    assert begun.wait(30)
    row = call()
    queued = storage.ledger.add_call(row)  # while the thread is busy, these two become one batch
    bad = storage.ledger._db.defer(_refuse)
    go.set()
    with pytest.raises(ValueError, match="no"):
        bad.result(30)
    assert queued is not None
    queued.result(30)
    assert [r.call_id for r in storage.ledger.calls(Filter(), limit=5)] == [row.call_id]
    con = sqlite3.connect(storage.ledger._db.path)
    noted = con.execute("SELECT number, names.name FROM calls JOIN processes ON number = calls.id >> 32, names").fetchall()
    con.close()
    assert {number for number, _ in noted} == {1}
    assert {name for _, name in noted} == {"sim/large", "summaries", "s1"}


def test_many_threads_remember_more_calls_than_are_kept(storage, monkeypatch):
    """Threads that add rows while the oldest ones are forgotten never get in each other's way."""
    ledger, errors = storage.ledger, []
    monkeypatch.setattr("nbllm.storage.ledger._MOST_IDS", 100)

    def add(name: int) -> None:
        try:
            for number in range(30_000):
                ledger._remember(f"{name}:{number}", number)
        except RuntimeError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch_s)
    assert errors == []
    assert len(ledger._ids) < 10_000


def _refuse(_: sqlite3.Connection) -> None:
    raise ValueError("no")


def test_who_is_refused_has_no_result_and_who_returns_an_error_has_one(storage):
    """In one transaction: `then` of a job that its kind refuses gets nothing, its caller the error; a plain job may return one."""
    transactions, got = storage.ledger._db._transactions, []
    refusal, value = ValueError("refused"), ValueError("a value like any other")

    def many(_, asked):
        return [Refused(refusal) if one else "done" for one in asked]

    batch = [
        Job(lambda _: None, then=got.append, many=many, asked=True),
        Job(lambda _: None, then=got.append, many=many, asked=False),
        Job(lambda _: value, then=got.append),
    ]
    assert transactions.commit(batch) == 3
    assert got == ["done", value]
    assert [job.error for job in batch] == [refusal, None, None]
