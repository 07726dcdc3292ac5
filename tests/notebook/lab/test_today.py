"""What this day has cost, as the panel says it beside a session that has only begun."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.core.ports import Filter
from nbllm.notebook.lab.bridge import Bridge
from nbllm.notebook.lab.desk import Desk
from nbllm.notebook.lab.reading import Day, TodayRead, read_today
from nbllm.testing import FakeProvider, Script
from tests.client.helpers import HeldProvider, fake_client, until
from tests.notebook.lab.fakes import Shell


def test_a_day_is_known_before_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was asked nothing, and no client at all, say what others have spent on their home today; neither is opened."""
    home = tmp_path / "home"
    with Client(home=home) as client:
        cost_usd = client.ask("Say hi", model="sim/small").cost_usd
        assert read_today(client) == TodayRead(of_session=True), "its own is known to the call, and never read"
    idle = Client(home=home)
    monkeypatch.setenv("NBLLM_HOME", str(home))
    before = (home / "ledger.db").read_bytes()
    assert read_today(idle) == read_today(None) == TodayRead(others=Day(cost_usd, 1))
    assert not idle.is_open
    assert (home / "ledger.db").read_bytes() == before


def test_a_day_without_a_home_is_free_and_makes_none(tmp_path: Path) -> None:
    """Where there is no ledger yet nothing was spent, and looking makes no folder."""
    assert read_today(Client(home=tmp_path / "none")) == TodayRead()
    assert not (tmp_path / "none").exists()


def test_calls_of_others_count_when_they_are_over(tmp_path: Path) -> None:
    """What another session is still asking is in no number, as with this session's own; nor where no client is open."""
    home, fake = tmp_path / "home", HeldProvider()
    with Client(home=home) as client, fake_client(home, fake, session="elsewhere") as other, ThreadPoolExecutor(1) as pool:
        client.ask("mine", model="sim/small")
        ended = other.ask("one")
        fake.enqueue(Script(pieces=["a"], hang=True))
        pending = pool.submit(other.ask, "two")
        page_of_none = Client(home=home)
        try:
            until(lambda: fake.in_flight)
            assert read_today(client).others == Day(ended.cost_usd, 1)
            assert read_today(page_of_none).others.calls == 2
        finally:
            fake.go.set()
        pending.result(30)
        assert read_today(client).others.calls == 2
        assert read_today(page_of_none).others.calls == 3


def test_what_the_session_used_before_midnight_is_not_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that runs over midnight, UTC, takes its calls of yesterday out of what it counts."""
    with Client(home=tmp_path / "home") as client:
        cost_usd = client.ask("Say hi", model="sim/small").cost_usd

        class Tomorrow:
            @staticmethod
            def now(zone: dt.tzinfo) -> dt.datetime:
                return dt.datetime.now(zone) + dt.timedelta(days=1)

        monkeypatch.setattr("nbllm.notebook.lab.reading.datetime", Tomorrow)
        assert read_today(client) == TodayRead(before=Day(cost_usd, 1), of_session=True)


def test_a_day_is_told_while_calls_go_on_without_a_pause(
    bridge: Bridge, shell: Shell, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that end one after the other put off nothing: what another session has spent is in the sum, each call once."""
    del bridge
    monkeypatch.setattr("nbllm.notebook.lab.desk.TODAY_S", 0.1)
    home = client.settings.home
    with Client(home=home, session="elsewhere", providers={"simulated": FakeProvider()}, model="sim/small") as other:
        other.ask("before")
        client.ask("first")
        stop = threading.Event()

        def steadily() -> None:
            number = 0
            while not stop.wait(0.002):
                client.ask(f"{number}")
                number += 1

        asking = threading.Thread(target=steadily)
        asking.start()
        try:
            page = shell.kernel.page("a")
            page.until(lambda: page.state and page.state["session"]["calls"] > 5)
            page.until(lambda: page.state["today"]["calls"] == page.state["session"]["calls"] + 1)
            other.ask("meanwhile")
            page.until(lambda: page.state["today"]["calls"] == page.state["session"]["calls"] + 2)
        finally:
            stop.set()
            asking.join(30)
        (row,) = client.ledger.usage("total", Filter(session=client.session))
        page.until(lambda: page.state["today"]["calls"] == row.calls + 2)
        total_usd = row.cost_usd + 2 * (row.cost_usd / row.calls)  # what is asked costs the same each time
        page.until(lambda: Decimal(page.state["today"]["cost_usd"]) == total_usd)


def test_a_client_that_was_closed_is_not_counted_twice(
    bridge: Bridge, shell: Shell, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls stay what the session used: they are not those of others as well."""
    del bridge
    monkeypatch.setattr("nbllm.notebook.lab.desk.TODAY_S", 0.05)
    monkeypatch.setattr("nbllm.notebook.lab.desk.IDLE_S", 0.05)
    looked: list[bool] = []
    look = Desk._read_today
    monkeypatch.setattr(Desk, "_read_today", lambda desk, of, now_s: (look(desk, of, now_s), looked.append(not of.is_open)))
    client.ask("x")
    page = shell.kernel.page("a")
    page.until(lambda: page.state and page.state["today"]["calls"] == 1)
    client.close()
    page.until(lambda: sum(looked) >= 8)  # eight times it was due to be read since then
    assert page.state["today"]["calls"] == 1
