"""What the tests of the doors share: a client on a fake provider, and waiting for what happens on another thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbllm import Client
from nbllm.core.messages import AttemptStatus, CallRow, Ending
from nbllm.core.ports import Filter, Progress, Wire
from nbllm.testing import FakeProvider, Script, Step
from tests.fault_server import FaultServer

ALL = Filter()


def fake_client(home: Path, fake: FakeProvider | None = None, **values: Any) -> Client:
    """A client whose sim/ models are played by a FakeProvider."""
    values.setdefault("model", "sim/small")
    return Client(home=home, providers={"simulated": fake or FakeProvider()}, **values)


class HeldProvider(FakeProvider):
    """A FakeProvider whose scripts that hang come to their end when `go` is set."""

    def __init__(self, *steps: Step) -> None:
        super().__init__(*steps)
        self.go = threading.Event()

    async def _play(self, script: Script, wire: Wire, progress: Progress) -> Ending:
        ending = await super()._play(replace(script, hang=False), wire, progress)
        while script.hang and not self.go.is_set():
            await asyncio.sleep(0.002)
        return ending


def rows(client: Client) -> list[CallRow]:
    """All calls of the ledger, oldest first."""
    return list(client.ledger.calls(ALL, limit=100_000))[::-1]


def check_sent(client: Client, server: FaultServer, models: dict[str, str]) -> None:
    """I1 where calls are cut off: each request that the server counted has one closed row that is marked sent.

    A row more may be marked sent: that of a request which was cut so soon after its write that the server never read it whole.
    """
    for rung, model in models.items():
        attempts = [a for row in rows(client) for a in client.ledger.attempts(row.call_id) if a.rung == rung]
        assert not [a for a in attempts if a.status in (AttemptStatus.OPEN, AttemptStatus.UNKNOWN)]
        sent = [a for a in attempts if a.sent]
        cut = [a for a in sent if a.status is AttemptStatus.CANCELLED or a.error == "CancelledError"]
        assert len(sent) - len(cut) <= server.count(model) <= len(sent), (rung, attempts)


def until(true: Callable[[], object], within_s: float = 30.0) -> None:
    """Wait until something is true. AssertionError when it is not in time, which is long for a machine that stalls."""
    give_up_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up_s, "it did not happen in time"
        time.sleep(0.002)


def our_threads() -> list[str]:
    """The names of nbllm's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("nbllm", "asyncio_"))]
