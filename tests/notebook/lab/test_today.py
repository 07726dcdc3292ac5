"""What this day has cost, as the panel says it beside a session that has only begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm import Client
from nbllm.notebook.lab.reading import Day, read_today


def test_a_day_is_known_before_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was asked nothing, and no client at all, say what others have spent on their home today; neither is opened."""
    home = tmp_path / "home"
    with Client(home=home) as client:
        cost_usd = client.ask("Say hi", model="sim/small").cost_usd
        day = read_today(client)
    assert day == Day(cost_usd, 1)
    idle = Client(home=home)
    monkeypatch.setenv("NBLLM_HOME", str(home))
    before = (home / "ledger.db").read_bytes()
    assert read_today(idle) == read_today(None) == day
    assert not idle.is_open
    assert (home / "ledger.db").read_bytes() == before


def test_a_day_without_a_home_is_free_and_makes_none(tmp_path: Path) -> None:
    """Where there is no ledger yet nothing was spent, and looking makes no folder."""
    assert read_today(Client(home=tmp_path / "none")) == Day()
    assert not (tmp_path / "none").exists()
