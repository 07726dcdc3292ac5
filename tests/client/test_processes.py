"""Several processes on one home: one budget, one request for identical calls."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from nbllm import Client
from tests import fault_behaviours as f
from tests.client.helpers import rows
from tests.client.workers import crowd, look_and_tell
from tests.fault_server import FaultServer

PROCESSES, CALLERS = 4, 50


def crowds(home: Path, base_url: str, **more: Any) -> Counter[str]:
    """Run four processes with fifty callers each, all starting together, and count how the calls ended."""
    context = multiprocessing.get_context("spawn")
    queue, ready = context.Queue(), context.Barrier(PROCESSES)
    processes = [
        context.Process(target=crowd, args=(home, base_url, queue, ready), kwargs={"callers": CALLERS, **more})
        for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    ends = sum((Counter(queue.get(timeout=60)) for _ in processes), Counter[str]())
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    return ends


def test_two_hundred_callers_in_four_processes_on_a_budget_worth_two_calls(tmp_path: Path) -> None:
    """Two get through, whichever processes they are in; the server counts two requests, and the day is not over its limit."""
    usage = {"prompt_tokens": 12, "completion_tokens": 256, "total_tokens": 268}
    limit_usd = Decimal("0.0060")  # worst case of one: 256 tokens at $10 and some 130 bytes at $2.5 a million = 0.0029
    with FaultServer() as server:
        server.script("m", [f.ok("x", usage=usage, delay_s=0.02)])
        values = {"budget_day_usd": str(limit_usd), "max_tokens": 256}
        ends = crowds(tmp_path, server.base_url, same=False, values=values)
        assert ends == {"model": 2, "BudgetExceeded": 198}
        assert server.count() == 2
    with Client(home=tmp_path, budget_day_usd=str(limit_usd)) as client:
        (day,) = (line for line in client.budget_lines() if line.scope.startswith("day:"))
        assert day.spent_usd == 2 * (12 * Decimal("2.5") + 256 * 10) / 10**6
        assert day.spent_usd <= limit_usd
        assert day.reserved_usd == 0
        assert Counter(row.status.value for row in rows(client)) == {"done": 2, "failed": 198}


def test_identical_calls_in_four_processes(tmp_path: Path) -> None:
    """Four processes with fifty identical calls each send one request; all get its answer, and it is paid once."""
    with FaultServer() as server:
        server.script("m", [f.ok(delay_s=0.3)])
        ends = crowds(tmp_path, server.base_url, same=True, values={})
        assert server.count() == 1, ends
        assert sum(ends.values()) == PROCESSES * CALLERS
        assert set(ends) <= {"model", "model coalesced", "cache", "cache coalesced"}
        assert ends["model"] == 1
        again = crowds(tmp_path, server.base_url, same=True, values={})
        assert again == {"cache": PROCESSES * CALLERS}, "later ones are hits"
        assert server.count() == 1
    with Client(home=tmp_path) as client:
        booked = rows(client)
        assert Counter(row.status.value for row in booked) == {"done": 2 * PROCESSES * CALLERS}
        paid = [a for row in booked for a in client.ledger.attempts(row.call_id)]
        assert [attempt.sent for attempt in paid] == [True]


def test_processes_that_make_one_home_together(tmp_path: Path) -> None:
    """Several kernels that start at once on a home that is not there yet all find it ready, none of them locked."""
    context = multiprocessing.get_context("spawn")
    queue, ready = context.Queue(), context.Barrier(PROCESSES)
    homes = [tmp_path / str(turn) for turn in range(5)]
    processes = [context.Process(target=look_and_tell, args=(homes, queue, ready)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in range(PROCESSES * len(homes))] == [(0, 0, 2)] * PROCESSES * len(homes)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
