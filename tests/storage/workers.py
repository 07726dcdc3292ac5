"""What the processes of the storage tests do: they say what is acknowledged.

`python -m tests.storage.workers WHAT HOME NAME` is one process. With WHAT `nursery` it forks writers when it is told to, which is
a hundred times quicker than starting an interpreter for each, and kills them with SIGKILL when it is told to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from concurrent.futures import Future
from decimal import Decimal

from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Scope, Stored, Written
from nbllm.errors import BudgetExceeded
from nbllm.storage.open import Storage, open_storage
from tests.storage.rows import attempt, call, open_attempt, open_call

KEYS = 20


def text_of(key: str) -> str:
    """Return the only right content of a key."""
    return key * 400


async def write_for_ever(storage: Storage, name: str) -> None:
    """Write calls, attempts, entries and reservations until killed; print each once it is acknowledged."""
    ledger = storage.ledger
    for number in range(1_000_000):
        row = open_call(call_id=f"{name}-{number}")
        one = open_attempt(row, attempt_id=f"{name}-{number}-a", worst_case_usd=Decimal("0.5"))
        for written in (ledger.open_call(row), ledger.open_attempt(one)):
            await sure(written)
        say("opened", row.call_id)
        await storage.budgets.reserve(row.call_id, [Scope("s")], Decimal("0.5"))
        say("reserved", row.call_id)
        key = f"key{number % KEYS}"
        entry = Stored(
            key=key,
            model="m",
            created_at=time.time(),
            expires_at=None,
            answer={"text": text_of(key)},
            cost_usd=None,
            latency_s=None,
        )
        await storage.store.put(entry)
        say("stored", key)
        found = storage.store.get_now(f"key{(number * 7) % KEYS}")
        if found is not None and found.answer != {"text": text_of(found.key)}:
            say("wrong", found.key)
        closed = call(call_id=row.call_id)
        for written in (
            ledger.close_attempt(attempt(closed, attempt_id=one.attempt_id, cost_usd=Decimal("0.25"))),
            ledger.close_call(closed),
        ):
            await sure(written)
        say("closed", row.call_id)
        await storage.budgets.settle(row.call_id, [Scope("s")], Decimal("0.25"))
        say("settled", row.call_id)


async def spend(storage: Storage, name: str, callers: int) -> None:
    """Have many callers try to spend from one budget; print who got through."""

    async def one(number: int) -> None:
        scope = [Scope("s", Decimal("0.25"))]
        try:
            held = await storage.budgets.reserve(f"{name}-{number}", scope, Decimal("0.1"))
        except BudgetExceeded:
            return
        if held["s"].spent_usd + held["s"].reserved_usd > Decimal("0.25"):
            say("over", name)
        await storage.budgets.settle(f"{name}-{number}", scope, Decimal("0.1"))
        say("spent", name)

    await asyncio.gather(*(one(number) for number in range(callers)))


async def add(storage: Storage, name: str, count: int) -> None:
    """Add calls as fast as they go."""
    waiting = []
    for number in range(count):
        written = storage.ledger.add_call(call(call_id=f"{name}-{number}", status=AttemptStatus.DONE, feature=f"f{number % 7}"))
        if written is not None:
            waiting.append(written)
    for written in waiting:
        written.exception(30)
    say("queued", str(len(waiting)))


async def sure(written: Written) -> None:
    """Wait for a row that does not go in place: for the loop's next turn, and where the file is locked, for the writer thread."""
    if isinstance(written, asyncio.Future):
        written = await written
    if isinstance(written, Future):
        await asyncio.wrap_future(written)


def say(what: str, which: str) -> None:
    """Acknowledge."""
    sys.stdout.write(f"{what} {which}\n")
    sys.stdout.flush()


def open_home(home: str, name: str) -> Storage:
    """Open a home, and tell of trouble."""
    storage = open_storage(home, session=name, on_trouble=lambda text: say("trouble", text.replace("\n", " ")))
    storage.prepare()
    assert storage.home.token
    return storage


def nursery(home: str) -> None:
    """Obey `born NAME` (fork a writer) and `kill NAME` (SIGKILL, wait until it is gone, say so) until the input ends."""
    import nbllm.storage.inline_cache  # noqa: F401 - so that no child imports it again

    pids: dict[str, int] = {}
    for line in sys.stdin:
        what, name = line.split()
        if what == "kill":
            os.kill(pids[name], signal.SIGKILL)
            say("dead" if os.waitpid(pids.pop(name), 0)[1] == signal.SIGKILL else "ended", name)
        elif not (pid := os.fork()):
            try:
                asyncio.run(write_for_ever(open_home(home, name), name))
            finally:
                os._exit(1)
        else:
            pids[name] = pid


def main() -> None:
    """Do what the command line says."""
    what, home, name, *rest = sys.argv[1:]
    if what == "nursery":
        nursery(home)
        return
    storage = open_home(home, name)
    say("ready", name)
    sys.stdin.readline()
    work = {"write": write_for_ever, "spend": spend, "add": add}[what]
    asyncio.run(work(storage, name, *(int(value) for value in rest)))
    storage.close()


if __name__ == "__main__":
    main()
