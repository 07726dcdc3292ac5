"""Budgets of a crowd: what is reserved or settled in one turn of a loop goes together, and as if one after the other."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbllm.core.ports import Balance, Scope
from nbllm.errors import BudgetExceeded, BudgetUnavailable
from nbllm.storage.memory import MemoryBudgets
from nbllm.storage.open import open_storage
from tests.storage.locking import locked

D = Decimal
CROWD = {"one", "two"}
LIMITS = {"a": D(12), "b": None, "c": D(30)}
_MONEY = st.integers(0, 10**13).map(lambda pico: D(pico).scaleb(-12))
_ASKED = st.tuples(st.integers(0, 8), st.sampled_from(["a", "b", "c", "ab", "abc"]), _MONEY)
_RESERVED = st.tuples(st.just("reserve"), st.lists(_ASKED, min_size=1, max_size=6))
_SETTLED = st.tuples(st.just("settle"), st.lists(_ASKED, min_size=1, max_size=6, unique_by=lambda asked: asked[0]))
_TURNS = st.lists(_RESERVED | _SETTLED, max_size=8)


@pytest.fixture
def storage(tmp_path):
    made = open_storage(tmp_path / "home", session="s")
    made.home.open_calls = CROWD  # so that what is written waits for the loop's next turn
    yield made
    made.close()


def test_what_goes_together_comes_out_as_one_after_the_other(storage):
    """Every balance, every refusal and what is held in the end are those of asking one by one, repeated ids included."""
    numbers = count()

    @settings(max_examples=60, deadline=None)
    @given(turns=_TURNS)
    @example(turns=[("reserve", [(0, "a", D(2)), (0, "a", D(11))])])  # twice one id, then over
    def holds(turns):
        asyncio.run(run(turns, f"{next(numbers)}."))

    async def run(turns, mine: str) -> None:
        memory = MemoryBudgets()
        for step, asked in turns:
            ways = []
            for budgets in (storage.budgets, memory):
                each = [
                    getattr(budgets, step)(f"{mine}{number}", [Scope(mine + name, LIMITS[name]) for name in names], usd)
                    for number, names, usd in asked
                ]
                ways.append([_told(outcome) for outcome in await asyncio.gather(*each, return_exceptions=True)])
            assert ways[0] == ways[1]
        names = [mine + name for name in LIMITS]
        assert await storage.budgets.balance(names) == await memory.balance(names)

    holds()


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
@pytest.mark.parametrize(
    ("cost_usd", "more_usd", "fits"),
    [("0.10", "0.50", True), ("1.20", "0.10", False)],
    ids=["gives back what was held", "costs more than was held"],
)
def test_what_is_settled_in_a_turn_counts_for_what_is_reserved_after_it(storage, kind, cost_usd, more_usd, fits):
    """Between two reservations one is settled, all in one turn: the later one is decided on what is known by then."""

    async def run() -> None:
        budgets = storage.budgets if kind == "sqlite" else MemoryBudgets()
        scope = [Scope("s", D(1))]
        await budgets.reserve("first", scope, D("0.9") if fits else D("0.5"))
        small, _, last = await asyncio.gather(
            budgets.reserve("small", scope, D("0.05")),
            budgets.settle("first", scope, D(cost_usd)),
            budgets.reserve("more", scope, D(more_usd)),
            return_exceptions=True,
        )
        assert isinstance(last, Mapping) is fits
        assert isinstance(last, BudgetExceeded) is not fits
        held_usd = D("0.05") * isinstance(small, Mapping) + D(more_usd) * fits
        assert (await budgets.balance(["s"]))["s"] == Balance(D(cost_usd), held_usd)

    asyncio.run(run())


def _told(outcome):
    """What is limited holds, or which scope refused."""
    if isinstance(outcome, Mapping):
        return {name: held for name, held in outcome.items() if LIMITS[name[-1]]}
    return outcome.scope


def test_a_refusal_leaves_those_beside_it_alone(storage):
    """Those that fit are reserved in the one transaction; those that do not are told so, each for itself."""
    commits = []

    async def run() -> None:
        await storage.budgets.reserve("warm", [Scope("other", D(1))], D(0))
        storage.budgets._db._files.writing.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        scope = [Scope("s", D("0.25"))]
        got = await asyncio.gather(*(storage.budgets.reserve(f"r{n}", scope, D("0.1")) for n in range(5)), return_exceptions=True)
        assert [type(one) for one in got] == [dict, dict, BudgetExceeded, BudgetExceeded, BudgetExceeded]
        assert got[1]["s"] == Balance(D(0), D("0.2"))
        assert got[2].reserved_usd == D("0.2")

    asyncio.run(run())
    assert len(commits) == 1


def test_those_refused_while_the_file_is_locked_are_asked_again_when_it_is_free(storage, tmp_path):
    """What a transaction that came to nothing had found is forgotten: room that came meanwhile is given."""

    async def run() -> None:
        scope = [Scope("s", D("0.25"))]
        await storage.budgets.reserve("first", scope, D("0.2"))
        with locked(tmp_path / "home" / "state.db"):
            asked = [asyncio.ensure_future(storage.budgets.reserve(f"r{n}", scope, D("0.05"))) for n in range(3)]
            freed = asyncio.ensure_future(storage.budgets.settle("first", scope, D("0.1")))
            await asyncio.sleep(0.02)
        got = await asyncio.gather(*asked, freed, return_exceptions=True)
        assert not any(isinstance(one, BudgetExceeded) for one in got)
        assert (await storage.budgets.balance(["s"]))["s"] == Balance(D("0.1"), D("0.15"))

    asyncio.run(run())


def test_one_that_fails_is_told_and_those_beside_it_are_booked(storage):
    """A transaction that an error ends is done again one by one, with nothing left of the first try."""

    async def run() -> None:
        scope = [Scope("s", D("0.25"))]
        database = storage.budgets._db

        def fails(_: object) -> None:
            raise ValueError("of its own")

        refused = [storage.budgets.reserve(f"r{n}", scope, D("0.2")) for n in range(2)]
        got = await asyncio.gather(*refused, database.run(fails, wait_s=1.0), return_exceptions=True)
        assert [type(one) for one in got] == [dict, BudgetExceeded, ValueError]
        assert (await storage.budgets.balance(["s"]))["s"] == Balance(D(0), D("0.2"))

    asyncio.run(run())


@pytest.mark.parametrize("calls", [1, 3])
def test_what_was_reserved_and_settled_leaves_no_row_and_is_booked_once(storage, calls):
    """A reservation that goes says that it is settled: files do not grow with calls, and ids that come again change nothing."""

    async def run() -> None:
        scope = [Scope("s", D(10))]
        for _ in range(2):
            await asyncio.gather(*(storage.budgets.reserve(f"r{n}", scope, D("0.5")) for n in range(calls)))
            await asyncio.gather(*(storage.budgets.settle(f"r{n}", scope, D("0.1")) for n in range(calls)))
            assert (await storage.budgets.balance(["s"]))["s"] == Balance(D("0.1") * calls, D(0))

    asyncio.run(run())
    rows = "SELECT (SELECT count(*) FROM reservations), (SELECT count(*) FROM settled)"
    assert storage.budgets._db.first_row(rows, ()) == (0, 0)


class _FullDisk:
    """A writing connection whose commits meet a full disk."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._real.execute(sql, *parameters)


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("hard_usd", [D(10), None], ids=["limited", "unlimited"])
def test_a_settling_whose_commit_met_a_full_disk_can_be_repeated(storage, calls, hard_usd):
    """It raises, and what is held stays held; once there is room again a second one books it, and a third changes nothing."""
    scope, files = [Scope("s", hard_usd)], storage.budgets._db._files

    async def settled() -> list[object]:
        each = (storage.budgets.settle(f"r{n}", scope, D("0.1")) for n in range(calls))
        return await asyncio.gather(*each, return_exceptions=True)

    async def run() -> None:
        await asyncio.gather(*(storage.budgets.reserve(f"r{n}", scope, D("0.5")) for n in range(calls)))
        real = files.writing
        files.writing = _FullDisk(real)
        assert [type(outcome) for outcome in await settled()] == [BudgetUnavailable] * calls
        files.writing = real
        assert (await storage.budgets.balance(["s"]))["s"] == Balance(D(0), D("0.5") * calls)
        for _ in range(2):
            await settled()
            assert (await storage.budgets.balance(["s"]))["s"] == Balance(D("0.1") * calls, D(0))

    asyncio.run(run())


def test_a_settling_that_came_to_nothing_is_done_again(storage):
    """The disk refuses the commit: what this process thought booked is booked when the transaction is done anew."""

    async def run() -> None:
        scope = [Scope("s", D(10))]
        await storage.budgets.reserve("r", scope, D("0.5"))

        def fails(_: object) -> None:
            raise ValueError("of its own")

        settling = storage.budgets.settle("r", scope, D("0.1"))
        await asyncio.gather(settling, storage.budgets._db.run(fails, wait_s=1.0), return_exceptions=True)
        assert (await storage.budgets.balance(["s"]))["s"] == Balance(D("0.1"), D(0))

    asyncio.run(run())
