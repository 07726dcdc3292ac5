"""What is remembered of names that were shown: nothing that became a secret, nothing long."""

from __future__ import annotations

import tracemalloc

import pytest

from nbllm import redaction
from nbllm.notebook.lab.values import MOST_NAME_CHARS, name


def test_a_secret_that_is_registered_late_is_shown_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was shown before its value became a secret is masked from then on, also where it is remembered."""
    monkeypatch.setattr(redaction, "_forms", {})
    value = "hunter2-correct-horse-battery"
    for text in (f"model {value}", f"model {value} {'x ' * MOST_NAME_CHARS}"):
        monkeypatch.setattr(redaction, "_forms", {})
        assert value in name(text)
        redaction.register_secret(value)
        assert value not in name(text)


def test_long_names_are_not_kept() -> None:
    """Three hundred features of a million characters each leave nothing behind."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            assert len(name(f"{number}{'x' * 1_000_000}")) == MOST_NAME_CHARS
        assert tracemalloc.get_traced_memory()[0] - before < 500_000
    finally:
        tracemalloc.stop()
