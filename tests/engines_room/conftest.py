"""Engines that are small scripts, and a look at which processes are left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nbllm.engines import Plan, plan_launch, running
from nbllm.engines.catalog import ENGINES, EngineKind, MetricNames
from tests.engines_room.processes import marked

FAKE = Path(__file__).with_name("fake_engine.py")


def fake_kind(mode: str, **changes: object) -> EngineKind:
    """The row of an engine that behaves in one of the ways of fake_engine.py."""
    values: dict[str, object] = {
        "name": "fake",
        "title": "Fake engine",
        "endpoint": "fake",
        "install": "It is part of the tests.",
        "program": sys.executable,
        "serve": ("-S", str(FAKE), mode),
        "arguments": ("--served-model-name", "{name}", "--port", "{port}"),
        "key_env": "FAKE_KEY",
        "metrics": MetricNames(running="vllm:num_requests_running", output_tokens="vllm:generation_tokens_total"),
        "idle_probe": False,
    }
    return EngineKind(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Plan]]:
    """Make a plan for an engine of some mode; what a test leaves running is stopped."""

    def plan(mode: str, *, port: int | None = None, **changes: object) -> Plan:
        monkeypatch.setitem(ENGINES, "fake", fake_kind(mode, **changes))  # type: ignore[arg-type]
        return plan_launch("fake", "tiny", port=port)

    yield plan
    for engine in running():
        engine.stop()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test ends with an engine running."""
    yield
    assert running() == []


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A mark of all that a test starts, which is gone 5 s later; folders of engines are made below tmp_path."""
    monkeypatch.setenv("NBLLM_TEST_MARK", f"{os.getpid()}-{tmp_path.name}")
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield (text := f"NBLLM_TEST_MARK={os.getpid()}-{tmp_path.name}")
    for pid in marked(text):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
