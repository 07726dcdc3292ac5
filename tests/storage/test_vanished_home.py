"""A home that is deleted while somebody uses it: the next call says it once, makes it anew, and goes on."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, NbllmWarning, errors
from nbllm.core.ports import Filter
from nbllm.storage.home import Home
from nbllm.storage.ledger import SqliteLedger
from nbllm.storage.sqlite import _databases
from nbllm.testing import FakeProvider
from tests.starvation import Stopwatch


def said(work: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return the result of some work and the warnings it gave."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    assert {warning.category for warning in caught} <= {NbllmWarning}
    return result, [str(warning.message) for warning in caught]


def vanish(folder: Path) -> None:
    """Delete a folder into which nobody is just putting a file, and wait until a client that looked just before looks again."""
    for database in list(_databases):
        assert database.flush(30)
    shutil.rmtree(folder)
    time.sleep(0.02)


def made(home: Path, **values: Any) -> Client:
    """Return a client of its own provider."""
    return Client(home=home, model="sim/small", providers={"simulated": FakeProvider(default="ok")}, **values)


DOORS: dict[str, Callable[[Client], Any]] = {
    "ask": lambda client: client.ask("two"),
    "a hit": lambda client: client.ask("one"),
    "cache off": lambda client: client.ask("two", cache="off"),
    "aask": lambda client: asyncio.run(client.aask("two")),
    "stream": lambda client: list(client.stream("two")),
    "embed": lambda client: client.embed(["two"]),
    "usage": lambda client: client.usage(),
    "store": lambda client: client.store.stats(),
    "recordings": lambda client: client.recordings.newest(1),
    "budget_lines": lambda client: client.budget_lines(),
}


@pytest.mark.parametrize("door", DOORS)
def test_the_next_call_says_it_and_goes_on_in_a_new_folder(door: str, tmp_path: Path) -> None:
    """Whichever door comes next: one warning that names the folder and what is lost, and from then on rows last again."""
    home = tmp_path / "home"
    with made(home, recordings=True) as client:
        client.ask("one")
        vanish(home)
        watch = Stopwatch()
        _, notes = said(lambda: DOORS[door](client))
        assert watch.s < 2
        (note,) = notes
        assert str(home) in note
        assert "deleted or moved" in note
        assert "budgets" in note
        _, later = said(lambda: (client.ask("three"), DOORS[door](client)))
        assert later == []
        before = client.usage("total")[0].calls
        client.ask("three")
    with made(home) as after:
        assert after.usage("total", session=client.session)[0].calls == before + 1
        assert after.ask("three").source == "cache"


def test_a_folder_that_somebody_else_made_anew_is_not_ours(tmp_path: Path) -> None:
    """Two clients on one home that is deleted: each says it, and both share the new one."""
    home = tmp_path / "home"
    with made(home) as one, made(home) as two:
        one.ask("q")
        two.ask("q")
        vanish(home)
        assert len(said(lambda: one.ask("new"))[1]) == 1
        reply, notes = said(lambda: two.ask("new"))
        assert (reply.source, len(notes)) == ("cache", 1)
        assert one.usage("total", session=two.session)[0].calls == two.usage("total")[0].calls


def test_many_threads_say_it_once(tmp_path: Path) -> None:
    """Of sixteen threads that find it gone one makes it anew and says so; all of them get their answers."""
    home = tmp_path / "home"
    texts: list[str] = []
    with made(home) as client:
        client.ask("one")
        vanish(home)

        def work() -> None:
            threads = [threading.Thread(target=lambda n=n: texts.append(client.ask(f"q{n}").text)) for n in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        _, notes = said(work)
        assert len(notes) == 1
        assert texts == ["ok"] * 16
        assert client.ask("after").text == "ok"


def test_budgets_go_on_in_the_new_folder(tmp_path: Path) -> None:
    """A hard budget holds again from the first call in the new folder on; nothing that was reserved stays reserved."""
    home = tmp_path / "home"
    with made(home, budget_session_usd="5.00") as client:
        client.ask("one")
        vanish(home)
        said(lambda: client.ask("two"))
        (line,) = [line for line in client.budget_lines() if line.scope.startswith("session:")]
        assert line.spent_usd > 0
        assert line.reserved_usd == 0
        client.configure(budget_session_usd=line.spent_usd)
        with pytest.raises(errors.BudgetExceeded):
            client.ask("three")


def test_a_folder_that_cannot_be_made_anew(tmp_path: Path) -> None:
    """Where the home cannot be made again the call says so, as a first call does, and the client can be closed."""
    home = tmp_path / "folder" / "home"
    with made(home) as client:
        client.ask("one")
        vanish(home.parent)
        home.parent.write_text("a file in its place")
        for _ in range(2):
            with pytest.raises(errors.HomeUnusable, match="below something that is not a directory"):
                client.ask("two")


def test_a_home_on_a_network_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look may wait for the network, so there is one a second at most."""
    monkeypatch.setattr("nbllm.storage.home.network_file_system", lambda _: "nfs4")
    home = Home(tmp_path / "home")
    home.prepare()
    monkeypatch.setattr("nbllm.storage.home.time.monotonic", lambda: 1000.0)
    assert not home.is_gone()
    vanish(home.path)
    assert not home.is_gone()
    monkeypatch.setattr("nbllm.storage.home.time.monotonic", lambda: 1001.5)
    assert home.is_gone()
    assert home.begin_anew()
    assert not home.begin_anew()
    home.close()


def test_what_one_thread_found_gone_is_gone_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is made anew each look says so, however soon after the first one: nobody goes on in files that are deleted."""
    home = Home(tmp_path / "home")
    home.prepare()
    monkeypatch.setattr("nbllm.storage.home.time.monotonic", lambda: 1000.0)
    assert not home.is_gone()
    vanish(home.path)
    assert not home.is_gone()  # just looked at
    monkeypatch.setattr("nbllm.storage.home.time.monotonic", lambda: 1000.02)
    assert home.is_gone()
    assert home.is_gone()
    assert home.begin_anew()
    assert not home.is_gone()
    home.close()


def test_reading_in_a_folder_that_goes_meanwhile(tmp_path: Path) -> None:
    """Storage by itself, which nobody asks whether its folder is there, says that it is gone, not that a disk is to be checked."""
    home = Home(tmp_path / "home")
    ledger = SqliteLedger(home, session="s")
    home.prepare()
    vanish(home.path)
    with pytest.raises(errors.StorageError, match=r"is gone.*\n.*the next call makes it anew") as caught:
        ledger.usage("total", Filter())
    assert "disk" not in str(caught.value)
    ledger.close()
