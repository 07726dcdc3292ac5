"""Several processes on one home: killed, competing, forked."""

from __future__ import annotations

import asyncio
import os
import threading
from decimal import Decimal

import pytest

from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Balance, Filter, Scope
from nbllm.errors import BudgetExceeded
from nbllm.storage.open import open_storage
from tests.storage.locking import locked
from tests.storage.processes import kill_writers, start
from tests.storage.rows import call, open_attempt, open_call

D = Decimal


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 is POSIX's")
def test_kill_9_of_four_writers(tmp_path):
    """Ten cycles of four writers on one home, each killed at a moment of its own (make test-services: a hundred)."""
    kill_writers(tmp_path / "home", 10, check_every=5)


def test_four_processes_write_one_ledger(tmp_path):
    """Every row of every process is there once, whether it was committed in place or queued."""
    workers = start("add", tmp_path / "home", ["a", "b", "c", "d"], 1500)
    for worker in workers:
        worker.end()
    storage = open_storage(tmp_path / "home", session="check", on_trouble=pytest.fail)
    (total,) = storage.ledger.usage("total", Filter())
    assert total.calls == 6000
    assert {row.group: row.calls for row in storage.ledger.usage("session", Filter())} == {"s1": 6000}
    assert sum(row.calls for row in storage.ledger.usage("feature", Filter())) == 6000
    assert len(storage.ledger.usage("feature", Filter())) == 7
    assert len({row.call_id for row in storage.ledger.calls(Filter(), limit=10_000)}) == 6000
    storage.close()


def test_two_hundred_callers_in_four_processes(tmp_path):
    """A budget worth two reservations lets two through, of 200 callers in four processes."""
    workers = start("spend", tmp_path / "home", ["a", "b", "c", "d"], 50)
    for worker in workers:
        worker.end()
    assert not any(worker.words("over") for worker in workers)
    assert sum(word == "spent" for worker in workers for word, _ in worker.said) == 2
    storage = open_storage(tmp_path / "home", session="check")
    assert asyncio.run(storage.budgets.balance(["s"]))["s"] == Balance(D("0.2"), D(0))
    storage.close()


def test_two_hundred_callers_in_threads(tmp_path):
    """The same from threads of one process, each with a loop of its own."""
    storage = open_storage(tmp_path / "home", session="s")
    spent: list[int] = []

    def work(name: int) -> None:
        async def run() -> None:
            for number in range(25):
                try:
                    held = await storage.budgets.reserve(f"{name}-{number}", [Scope("s", D("0.25"))], D("0.1"))
                except BudgetExceeded:
                    continue
                assert held["s"].spent_usd + held["s"].reserved_usd <= D("0.25")
                await storage.budgets.settle(f"{name}-{number}", [Scope("s")], D("0.1"))
                spent.append(number)

        asyncio.run(run())

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spent) == 2
    storage.close()


def test_rows_of_the_dead_are_closed_and_rows_of_the_living_left_alone(tmp_path):
    """Unknown, at its worst case; without one the cost stays unknown. A live process's open call stays open."""
    dead, living = (open_storage(tmp_path / "home", session="s") for _ in range(2))
    lost, priced = open_call(), open_call()
    mine = open_call()
    for storage, row, worst in ((dead, lost, None), (dead, priced, D("0.5")), (living, mine, D("0.7"))):
        storage.ledger.open_call(row)
        storage.ledger.open_attempt(open_attempt(row, worst_case_usd=worst))
    dead.home.close()  # as the system does for a process that ended
    after = open_storage(tmp_path / "home", session="s")
    status = {row.call_id: row.status for row in after.ledger.calls(Filter(), limit=5)}
    assert status == {lost.call_id: AttemptStatus.UNKNOWN, priced.call_id: AttemptStatus.UNKNOWN, mine.call_id: AttemptStatus.OPEN}
    (one,) = after.ledger.attempts(priced.call_id)
    assert (one.status, one.cost_usd, one.cost_basis) == (AttemptStatus.UNKNOWN, D("0.5"), "estimated")
    (one,) = after.ledger.attempts(lost.call_id)
    assert (one.cost_usd, one.cost_basis) == (None, "unknown")
    (total,) = after.ledger.usage("total", Filter())
    assert (total.cost_usd, total.estimated_usd, total.unknown_cost_calls) == (D("0.5"), D("0.5"), 2)
    assert {row.group: row.calls for row in after.ledger.usage("status", Filter())} == {"unknown": 2, "open": 1}
    living.ledger.close_call(call(call_id=mine.call_id))
    assert after.ledger.calls(Filter(), limit=3)[0].status in AttemptStatus
    assert {row.group: row.calls for row in after.ledger.usage("status", Filter())} == {"unknown": 2, "done": 1}
    for storage in (dead, living, after):
        storage.close()


def test_reservations_of_the_dead_are_spent_in_full(tmp_path):
    """Nobody can tell what they cost, so the worst case stays booked, once; those of the living are left alone."""
    dead, living = (open_storage(tmp_path / "home", session="s") for _ in range(2))
    asyncio.run(dead.budgets.reserve("d", [Scope("s"), Scope("t")], D("0.5")))
    asyncio.run(living.budgets.reserve("l", [Scope("s")], D("0.25")))
    dead.home.close()
    after = open_storage(tmp_path / "home", session="s")
    asyncio.run(after.budgets.reserve("x", [Scope("s"), Scope("t")], D(0)))
    held = asyncio.run(after.budgets.balance(["s", "t"]))
    assert held == {"s": Balance(D("0.5"), D("0.25")), "t": Balance(D("0.5"), D(0))}
    asyncio.run(after.budgets.settle("d", [Scope("s")], D("0.5")))
    assert asyncio.run(after.budgets.balance(["s"]))["s"] == Balance(D("0.5"), D("0.25"))
    for storage in (dead, living, after):
        storage.close()


def test_the_lease_of_a_dead_process_is_free(tmp_path):
    """No waiting for its end."""
    dead, living = (open_storage(tmp_path / "home", session="s") for _ in range(2))
    first = asyncio.run(dead.flights.lead("k", lease_s=1000))
    assert asyncio.run(living.flights.lead("k", lease_s=1000)) is None
    dead.home.close()
    second = asyncio.run(living.flights.lead("k", lease_s=1000))
    assert second.fence > first.fence
    assert not asyncio.run(dead.flights.holds(first))
    dead.close()
    living.close()


def test_a_cancelled_reservation_is_not_held(tmp_path):
    """Whoever is cancelled while the database is locked leaves nothing behind."""
    storage = open_storage(tmp_path / "home", session="s")

    async def run() -> None:
        await storage.budgets.reserve("first", [Scope("s")], D(1))
        with locked(tmp_path / "home" / "state.db"):
            task = asyncio.ensure_future(storage.budgets.reserve("gone", [Scope("s")], D(1)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        storage.budgets._db.flush(5)
        assert (await storage.budgets.balance(["s"]))["s"].reserved_usd == D(1)

    asyncio.run(run())
    storage.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_afresh(tmp_path):
    """The child writes and reads all ports under a token of its own; parent and child lose nothing and do not block each other."""
    storage = open_storage(tmp_path / "home", session="s", on_trouble=pytest.fail)
    mine = open_call()
    storage.ledger.open_call(mine)
    assert storage.store.get_now("nothing") is None
    asyncio.run(storage.budgets.reserve("parent", [Scope("s")], D(1)))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(100):
                written = storage.ledger.add_call(call())
                if written is not None:
                    written.result(30)
            asyncio.run(storage.budgets.settle("child", [Scope("s")], D(1)))
            right = asyncio.run(storage.budgets.balance(["s"]))["s"] == Balance(D(1), D(1))
            if right and storage.store.get_now("nothing") is None and storage.home.token.startswith(f"{os.getpid()}-"):
                code = 0
        finally:
            os._exit(code)
    for _ in range(100):
        written = storage.ledger.add_call(call())
        if written is not None:
            written.result(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    rows = storage.ledger.calls(Filter(), limit=1000)
    assert len(rows) == 201
    assert {row.call_id: row.status for row in rows}[mine.call_id] is AttemptStatus.OPEN
    assert asyncio.run(storage.budgets.balance(["s"]))["s"] == Balance(D(1), D(1))
    other = open_storage(tmp_path / "home", session="s")
    assert other.home.dead([storage.home.token]) == set()  # the child's end did not free the parent's lock
    other.close()
    storage.close()
