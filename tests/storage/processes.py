"""Starting the processes of tests.storage.workers, and killing them."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Filter, Scope
from nbllm.storage.open import open_storage
from tests.storage.workers import KEYS, text_of

D = Decimal
ROOT = Path(__file__).parents[2]


class Worker:
    """One process of tests.storage.workers, and all that it has acknowledged."""

    def __init__(self, what: str, home: Path, name: str, *rest: object) -> None:
        self.said: list[tuple[str, str]] = []
        command = [sys.executable, "-m", "tests.storage.workers", what, str(home), name, *map(str, rest)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            what, _, which = line.rstrip("\n").partition(" ")
            if line.endswith("\n"):  # a kill may cut the last one
                self.said.append((what, which))

    def wait_for(self, what: str, which: str = "") -> None:
        deadline = time.monotonic() + 60
        while not any(word == what and it.startswith(which) for word, it in self.said):
            assert time.monotonic() < deadline, self.said[-3:]
            time.sleep(0.001)

    def tell(self, line: str = "") -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.stdin.close()
        code = self.process.wait(60)
        self._reader.join()
        self.process.stdout.close()
        assert code == 0

    def words(self, what: str) -> set[str]:
        return {which for word, which in self.said if word == what}


def start(what: str, home: Path, names: list[str], *rest: object) -> list[Worker]:
    workers = [Worker(what, home, name, *rest) for name in names]
    for worker in workers:
        worker.wait_for("ready")
    for worker in workers:
        worker.tell()
    return workers


def kill_writers(home: Path, cycles: int, *, check_every: int) -> None:
    """Kill -9 four writers on one home in the middle of their work, again and again, and look at everything now and then."""
    acknowledged: dict[str, set[str]] = {}
    nursery = Worker("nursery", home, "-")
    for cycle in range(cycles):
        kill_cycle(nursery, cycle, acknowledged)
        if (cycle + 1) % check_every == 0:
            check_after_kills(home, acknowledged)
    nursery.end()
    assert len(acknowledged["dead"]) == 4 * cycles


def kill_cycle(nursery: Worker, cycle: int, acknowledged: dict[str, set[str]]) -> None:
    """Have four writers born, kill -9 each at a moment of its own, and add up what they acknowledged."""
    names = [f"{cycle}.{number}" for number in range(4)]
    for name in names:
        nursery.tell(f"born {name}")
    for number, name in enumerate(names):
        nursery.wait_for("closed", f"{name}-")
        time.sleep(0.001 * ((cycle * 7 + number * 3) % 10))
        nursery.tell(f"kill {name}")
        nursery.wait_for("dead", name)
    for what, which in nursery.said:
        acknowledged.setdefault(what, set()).add(which)
    nursery.said.clear()


def check_after_kills(home: Path, acknowledged: dict[str, set[str]]) -> None:
    """No acknowledged row lost, nothing wrong read, no orphan file, no budget too low."""
    assert not acknowledged.get("wrong")
    assert not acknowledged.get("trouble")
    storage = open_storage(home, session="check", on_trouble=pytest.fail)
    rows = {row.call_id: row for row in storage.ledger.calls(Filter(), limit=10**6)}
    assert acknowledged["opened"] <= set(rows)
    assert all(rows[call_id].status is AttemptStatus.DONE for call_id in acknowledged["closed"])
    assert {row.status for row in rows.values()} <= {AttemptStatus.DONE, AttemptStatus.UNKNOWN}
    unfinished = [row.call_id for row in rows.values() if row.call_id not in acknowledged["closed"]]
    for call_id in unfinished:
        for one in storage.ledger.attempts(call_id):
            assert one.cost_usd in {D("0.5"), D("0.25")}  # the worst case, or the true cost where the close came through
            assert one.status in {AttemptStatus.UNKNOWN, AttemptStatus.DONE}
    for key in acknowledged["stored"]:
        assert storage.store.get_now(key).answer == {"text": text_of(key)}
    assert len(list(storage.store.entries())) == KEYS or len(acknowledged["stored"]) < KEYS
    assert storage.store.stats().damaged == 0
    assert storage.home.token  # whoever writes sweeps up what the dead have left
    asyncio.run(storage.budgets.reserve("check", [Scope("other", D(1))], D(0)))
    balance = asyncio.run(storage.budgets.balance(["s"]))["s"]
    settled, open_ones = len(acknowledged["settled"]), len(acknowledged["reserved"] - acknowledged["settled"])
    assert balance.reserved_usd == 0
    assert balance.spent_usd >= D("0.25") * settled + D("0.25") * open_ones
    assert balance.spent_usd <= D("0.25") * settled + D("0.5") * (open_ones + len(acknowledged["dead"]))
    storage.close()
    for name in ("ledger.db", "state.db", "cache/cache.db"):
        con = sqlite3.connect(home / name)
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        con.close()
    files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {name.removesuffix("-wal").removesuffix("-shm") for name in files} == {"ledger.db", "state.db", "cache/cache.db"}
