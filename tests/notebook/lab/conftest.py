"""A bridge without a kernel's processes, and the client that it serves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nbllm import Client
from nbllm.current import get_client, set_process_client
from nbllm.flow_context import ONLOOKERS
from nbllm.notebook.lab.bridge import Bridge
from nbllm.testing import FakeProvider
from tests.notebook.lab.fakes import Shell


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nbllm-lab"]


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def client(tmp_path: Any, fake: FakeProvider) -> Iterator[Client]:
    with Client(home=tmp_path / "home", providers={"simulated": fake}, model="sim/small") as made:
        set_process_client(made)
        yield made
        set_process_client(None)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr("comm.create_comm", lambda **_: None)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return Shell()


@pytest.fixture
def bridge(shell: Shell) -> Iterator[Bridge]:
    made = Bridge(shell, get_client, "0.1.0")
    made.open()
    yield made
    made.close()
    assert threads() == []
    assert ONLOOKERS == []
