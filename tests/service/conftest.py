"""What holds for all tests of the service."""

from __future__ import annotations

import time

import pytest

from nbllm.service.memory_counters import MemoryCounters


@pytest.fixture(autouse=True)
def a_minute_that_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are counted in windows of a minute, and where one ends the next lets one more pass: no test is to meet that end."""
    until_next_s = -time.monotonic() % 60
    defaults = {**(MemoryCounters.__init__.__kwdefaults__ or {}), "now_s": lambda: time.monotonic() + until_next_s}
    monkeypatch.setattr(MemoryCounters.__init__, "__kwdefaults__", defaults)
