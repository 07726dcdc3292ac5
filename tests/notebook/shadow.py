"""A project whose semantic cache is in shadow, for tests of panels, labels and reasons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbllm.client import Client
from nbllm.settings import Settings
from nbllm.testing import FakeProvider
from tests.steady import STEADY

BAD = "<img src=x onerror=alert(1)>"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder with settings of its own, in which the notebook runs."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "nbllm.toml").write_text('# ours\n[semantic_cache]\nmode = "shadow"  # for now\n', encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def client(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A real client in shadow, current in the notebook; every sim model answers at once."""
    with Client(home=tmp_path / "home", settings=Settings(), providers={"simulated": FakeProvider()}, ladder=["sim/large"]) as made:
        made.configure(**{"semantic_cache.mode": "shadow", **STEADY})
        monkeypatch.setattr("nbllm.notebook.extension.current_client", lambda: made)
        yield made


def met(client: Client, times: int = 4, *, label: bool | None = None) -> None:
    """Let the cache meet questions in other words, and label all of it."""
    for mark in ("", "?", ", please", "!", "??", "!?", "..", "!!")[: times + 1]:
        for topic in ("an egg", "rice", "potatoes", "beans", f"carrots {BAD}"):
            client.ask(f"How do I boil {topic}{mark}", model="sim/large")
    if label is not None:
        for match in client.semantic.to_label(1000):
            client.semantic.label(match, label)


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was displayed, in order: bundles."""
    found: list[Any] = []

    def display(value: Any, **_: Any) -> None:
        found.append(value if isinstance(value, dict) else value._repr_mimebundle_())

    monkeypatch.setattr("IPython.display.display", display)
    return found


def live(shell: Any, monkeypatch: pytest.MonkeyPatch, *, stdin: bool = True) -> None:
    """Let the shell pass for a kernel whose front end has a person before it, or none."""
    monkeypatch.setattr(shell, "kernel", type("Kernel", (), {"_allow_stdin": stdin})(), raising=False)
