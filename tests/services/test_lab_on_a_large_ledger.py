"""The panel beside a ledger of a million calls: what is read for it is read in time, and holds up nobody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bench.fill import fill_ledger
from nbllm import Client
from nbllm.current import get_client, set_process_client
from nbllm.notebook.lab.bridge import Bridge
from tests.notebook.lab.fakes import Shell

pytestmark = pytest.mark.slow


def test_a_page_beside_a_million_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Session and day are there within seconds, a notebook's cache can be cleared, and calls go on meanwhile."""
    fill_ledger(tmp_path / "home", 1_000_000)
    monkeypatch.setattr("comm.create_comm", lambda **_: None)
    shell: Any = Shell()
    with Client(home=tmp_path / "home", model="sim/small") as client:
        set_process_client(client)
        bridge = Bridge(shell, get_client, "0")
        bridge.open()
        try:
            client.ask("x")
            page = shell.kernel.page("a")
            slowest_s = 0.0
            for _ in range(200):
                began_s = time.monotonic()
                client.ask("x")
                slowest_s = max(slowest_s, time.monotonic() - began_s)
            page.until(lambda: page.state and page.state["session"]["calls"] == 201)
            page.until(lambda: page.state["today"]["calls"] >= 201, within_s=30)
            page.say({"v": 1, "type": "command", "id": "k", "do": "clear_cache"})
            page.until(lambda: any(isinstance(one, dict) for one in page.heard), within_s=30)
            assert [one["ok"] for one in page.heard if isinstance(one, dict)] == [True]
            assert len(page.state["calls"]) == 200
            assert slowest_s < 1
        finally:
            bridge.close()
            set_process_client(None)
