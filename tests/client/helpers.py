"""What the tests of the doors share: a client on a fake provider, and waiting for what happens on another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbllm import Client
from nbllm.core.messages import CallRow
from nbllm.core.ports import Filter
from nbllm.testing import FakeProvider

ALL = Filter()


def fake_client(home: Path, fake: FakeProvider | None = None, **values: Any) -> Client:
    """A client whose sim/ models are played by a FakeProvider."""
    values.setdefault("model", "sim/small")
    return Client(home=home, providers={"simulated": fake or FakeProvider()}, **values)


def rows(client: Client) -> list[CallRow]:
    """All calls of the ledger, oldest first."""
    return list(client.ledger.calls(ALL, limit=100_000))[::-1]


def until(true: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait until something is true. AssertionError when it is not in time."""
    give_up_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up_s, "it did not happen in time"
        time.sleep(0.002)


def our_threads() -> list[str]:
    """The names of nbllm's threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("nbllm", "asyncio_"))]
