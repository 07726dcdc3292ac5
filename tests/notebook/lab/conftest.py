"""A bridge without a kernel's processes, and the client that it serves; a real kernel, and front ends for it."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nbllm import Client
from nbllm.current import get_client, set_process_client
from nbllm.flow_context import ONLOOKERS
from nbllm.notebook.lab.bridge import Bridge
from nbllm.testing import FakeProvider
from tests.client.helpers import HeldProvider, fake_client
from tests.notebook.kernel import Kernel, kernel_with_a_home
from tests.notebook.lab.fakes import Shell
from tests.notebook.lab.fronts import Front


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nbllm-lab"]


@pytest.fixture
def fake() -> HeldProvider:
    return HeldProvider()


@pytest.fixture
def client(tmp_path: Any, fake: FakeProvider) -> Iterator[Client]:
    with fake_client(tmp_path / "home", fake) as made:
        set_process_client(made)
        yield made
        set_process_client(None)


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Today is the day on which the test begins, also when it ends after midnight, UTC."""
    began = dt.datetime.now(dt.UTC)

    class Day:
        @staticmethod
        def now(_: dt.tzinfo) -> dt.datetime:
            return began

    monkeypatch.setattr("nbllm.notebook.lab.reading.datetime", Day)


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


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests of this file, with a home of its own and the extension loaded."""
    with kernel_with_a_home(tmp_path_factory) as made:
        assert made.run("%load_ext nbllm\nimport nbllm, threading, os, time\nfrom nbllm.flow_context import ONLOOKERS") == "ok"
        made.loaded = made.messages  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def fronts(kernel: Kernel) -> Iterator[Any]:
    """Makes front ends, and closes them again."""
    made: list[Front] = []

    def make(notebook: str | None = "a.ipynb", **options: Any) -> Front:
        made.append(Front(kernel.manager, notebook, **options))
        return made[-1]

    yield make
    for front in made:
        front.raw("comm_close", {"data": {}})
        front.close()
    for _ in range(100):  # in many cells: the end of a comm waits for the one that runs
        if kernel.value("list(ONLOOKERS)") == "[]":
            break
