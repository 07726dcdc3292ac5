"""A home that cannot be used is an error before anything is sent; a disk that fails later costs one warning, not the answer."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, NbllmWarning, errors
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client, our_threads, rows
from tests.starvation import Stopwatch
from tests.storage.locking import locked


def a_link(home: Path, _: pytest.MonkeyPatch) -> None:
    """A symbolic link to a folder that would do."""
    (home.parent / "elsewhere").mkdir()
    home.symlink_to(home.parent / "elsewhere")


def a_file(home: Path, _: pytest.MonkeyPatch) -> None:
    """A file."""
    home.write_text("mine")


def below_a_file(home: Path, _: pytest.MonkeyPatch) -> None:
    """A folder below a file."""
    home.parent.rmdir()
    home.parent.write_text("mine")


def of_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that belongs to somebody else."""
    home.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid + 1, raising=False)


def unwritable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without the right to write (root has all rights, so the question is answered for it)."""
    home.mkdir()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)


def failing(code: int) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """A place where no folder can be made."""

    def prepare(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def mkdir(self: Path, *_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code), str(self))

        monkeypatch.setattr(Path, "mkdir", mkdir)

    return prepare


UNUSABLE: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "a link": (a_link, "symbolic link"),
    "a file": (a_file, "not a directory"),
    "below a file": (below_a_file, "not a directory"),
    "of another user": (of_another_user, "belongs to another user"),
    "unwritable": (unwritable, "cannot be written"),
    "on a read-only disk": (failing(errno.EROFS), "read-only disk"),
    "on a full disk": (failing(errno.ENOSPC), "full disk"),
    "over its quota": (failing(errno.EDQUOT), "quota"),
    "on a broken disk": (failing(errno.EIO), "cannot be used"),
}


@pytest.mark.skipif(os.name != "posix", reason="links, owners and codes of POSIX")
@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("door", ["ask", "stream", "cache off", "embed"])
def test_a_home_that_cannot_be_used(name: str, door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every door says which folder, what is wrong with it and what to set, before anything is sent; the client can be closed."""
    prepare, part = UNUSABLE[name]
    home = tmp_path / "folder" / "home"
    home.parent.mkdir()
    fake = FakeProvider(strict=True)
    with fake_client(home, fake) as client:
        prepare(home, monkeypatch)
        doors: dict[str, Callable[[], object]] = {
            "ask": lambda: client.ask("hello"),
            "stream": lambda: list(client.stream("hello")),
            "cache off": lambda: client.ask("hello", cache="off"),
            "embed": lambda: client.embed(["hello"]),
        }
        with pytest.raises(errors.HomeUnusable, match=part) as caught:
            doors[door]()
        assert str(home) in caught.value.summary
        assert "NBLLM_HOME" in caught.value.hint
        assert fake.calls == 0
    monkeypatch.undo()
    assert our_threads() == []


def warned(work: Callable[[], Reply]) -> tuple[Reply, list[str]]:
    """Return the reply and the warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reply = work()
    assert {warning.category for warning in caught} <= {NbllmWarning}
    return reply, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("file", ["ledger.db", "cache/cache.db", "state.db"])
@pytest.mark.parametrize("how", ["a folder in its place", "damaged"])
def test_a_file_that_cannot_be_used(file: str, how: str, tmp_path: Path) -> None:
    """The answer is delivered all the same, with one warning that names the file; the next call has no more to say about it."""
    path = tmp_path / file
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if how == "damaged":
        path.write_bytes(b"This is no database, it only stands where one should be. " * 200)
        path.chmod(0o600)
    else:
        path.mkdir()
    with fake_client(tmp_path) as client:
        reply, said = warned(lambda: client.ask("hello"))
        again, said_again = warned(lambda: client.ask("something else"))
        assert (reply.text, again.text) == ("ok", "ok")
        told = [text for text in said + said_again if path.name in text]
        assert len(told) == 1, said + said_again
        if how == "damaged":
            assert "damaged" in told[0]
            assert [p.name for p in path.parent.glob("*.damaged-*")]
            assert len(rows(client)) >= 1
    assert our_threads() == []


@pytest.mark.parametrize("how", ["a folder in its place", "locked"])
def test_a_hard_budget_that_cannot_be_checked(how: str, tmp_path: Path) -> None:
    """Nothing is sent when a hard budget is set and its file cannot be used: better no answer than one too many."""
    fake = FakeProvider(strict=True)
    with fake_client(tmp_path, fake, budget_session_usd=5) as client, ExitStack() as held:
        if how == "locked":
            fake.enqueue("first")
            client.ask("to make the file")
            held.enter_context(locked(tmp_path / "state.db"))
        else:
            (tmp_path / "state.db").mkdir()
        with pytest.raises(errors.BudgetUnavailable, match="Nothing was sent"):
            client.ask("hello", cache="off")
        assert fake.left == 0


def test_a_ledger_that_another_program_locks(tmp_path: Path) -> None:
    """A locked ledger delays a call a little, is said once, and its rows are written when it is free."""
    with fake_client(tmp_path) as client:
        client.ask("to make the file")
        with locked(tmp_path / "ledger.db"):
            reply, said = warned(lambda: client.ask("hello"))
        assert reply.text == "ok"
        assert len([text for text in said if "locked" in text]) >= 1
        assert [row.status.value for row in rows(client)] == ["done", "done"]


@pytest.mark.parametrize("file", ["state.db", "cache/cache.db", "ledger.db"])
def test_a_locked_file_and_a_short_deadline(tmp_path: Path, file: str) -> None:
    """Whichever file another program holds, an answer that comes at once is delivered within half a second."""
    with fake_client(tmp_path, FakeProvider()) as client:
        client.ask("before")
        reply, said = warned(lambda: in_half_a_second(client, tmp_path / file))
    assert reply.text == "ok"
    assert any("locked" in text or "too slow" in text for text in said)


def in_half_a_second(client: Client, file: Path) -> Reply:
    """Ask beside a program that holds a file; once more where the machine's other work took the time."""
    while True:
        watch = Stopwatch()
        with locked(file):
            try:
                return client.ask("meanwhile", deadline_s=0.5)
            except errors.DeadlineExceeded:
                assert watch.lost_s > 0.1  # else half a second was enough


def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system everything works, with one warning that says what is different."""
    monkeypatch.setattr("nbllm.storage.home.network_file_system", lambda _: "nfs4")
    with fake_client(tmp_path) as client:
        reply, said = warned(lambda: client.ask("hello"))
        again, later = warned(lambda: client.ask("hello"))
        assert (reply.text, again.source) == ("ok", "cache")
        (told,) = said + later
        assert "network file system (nfs4)" in told
    assert not (tmp_path / "ledger.db").exists()
    assert list(tmp_path.glob("machines/*/ledger.db"))


def test_a_home_that_is_deleted_under_us(tmp_path: Path) -> None:
    """A home that somebody deletes while the client is open costs what was kept, not the answers."""
    import shutil

    home = tmp_path / "home"
    with fake_client(home, FakeProvider(default="ok")) as client:
        client.ask("hello")
        shutil.rmtree(home)
        reply, _ = warned(lambda: client.ask("and now?"))
        assert reply.text == "ok"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_modes(tmp_path: Path) -> None:
    """What lasts is for its owner only: folders 0700, files 0600."""
    home = tmp_path / "home"
    with Client(home=home, model="sim/small", providers={"simulated": FakeProvider()}, recordings=True) as client:
        client.ask("hello")
        found = [home, *home.rglob("*")]
        assert len(found) > 5
        for path in found:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
