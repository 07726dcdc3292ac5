"""semantic.db: what was met, what people say of it. What holds for every such store is in tests/conformance."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from msgspec.structs import replace

from nbllm.storage.home import Home
from nbllm.storage.matches import SqliteMatches
from tests.storage.met import LABEL, MATCH


def test_forgotten_and_secret_texts_are_not_in_the_files(tmp_path: Path) -> None:
    """Texts are redacted before they are written, and overwritten when they are forgotten."""
    matches = SqliteMatches(Home(tmp_path / "home"))
    secret = "sk-proj-" + "a1B2c3D4" * 6
    for number in range(30):
        matches.note(replace(MATCH, match_id=str(number), query=f"my key is {secret}", would="remember-me " * 200))
    assert secret not in str(matches.newest(50))
    matches.forget()
    matches.close()
    for path in (tmp_path / "home").rglob("*.db*"):
        assert b"remember-me" not in path.read_bytes()
        assert secret.encode() not in path.read_bytes()


def test_the_oldest_without_a_label_go_first(tmp_path: Path) -> None:
    """The store is bounded; what somebody labelled is kept."""
    matches = SqliteMatches(Home(tmp_path / "home"), most=100)
    matches.note(replace(MATCH, at=4e9 - 1e6))
    matches.label(LABEL)
    for number in range(450):
        written = matches.note(replace(MATCH, match_id=str(number), at=4e9 + number))
    assert written is not None
    written.result(30)
    kept = {one.match_id for one in matches.newest(1000)}
    assert "m1" in kept
    assert "449" in kept
    assert "0" not in kept
    assert len(kept) <= 100 + 200
    matches.close()


def _work(home: str, number: int) -> None:
    matches = SqliteMatches(Home(home))
    for count in range(50):
        matches.note(replace(MATCH, match_id=f"{number}-{count}"))
        matches.look("shared", f"{number}-{count}")
    matches.close()


def test_processes_share_it(tmp_path: Path) -> None:
    """Four processes write at once: nothing is lost, and no two looks have the same number."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(str(tmp_path / "home"), number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    matches = SqliteMatches(Home(tmp_path / "home"))
    assert len(matches.newest(1000)) == 200
    assert matches.look("shared", "new") == 201
    matches.close()
