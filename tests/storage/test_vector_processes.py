"""The vector index and several processes on one home: writing, forgetting, forked, killed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm.storage.home import Home
from nbllm.storage.vectors import SqliteVectors
from tests.storage.vector_making import keys, row, run
from tests.storage.vector_workers import vector_of

ROOT = Path(__file__).parents[2]
WORKERS = [sys.executable, "-m", "tests.storage.vector_workers"]


class Other:
    """Another process with an index of its own on the same home, open all the time."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [*WORKERS, "echo", str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def tell(self, line: str) -> list[list[str]]:
        """Have it do something, and return what it finds for each key afterwards."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def other(tmp_path) -> Iterator[Other]:
    other = Other(tmp_path / "home")
    yield other
    other.process.stdin.close()
    assert other.process.wait(30) == 0
    other.process.stdout.close()


@pytest.fixture
def index(tmp_path) -> Iterator[SqliteVectors]:
    home = Home(tmp_path / "home")
    index = SqliteVectors(home)
    yield index
    index.close()
    home.close()


def found(index: SqliteVectors, key: str) -> list[str]:
    return keys(run(index.nearest("p", vector_of(key), 1, at_least=0.99)))


def test_each_process_sees_what_the_other_adds_and_drops_at_once(index, other):
    """The very next search finds a row that was added and none that was dropped, in both directions, loaded or not."""
    assert other.tell("add a b c") == [["a"], ["b"], ["c"]]
    assert [found(index, key) for key in "abc"] == [["a"], ["b"], ["c"]]
    run(index.add(row("d", vector_of("d"))))
    assert other.tell("look d a") == [["d"], ["a"]]
    assert run(index.drop("a")) == 1
    assert other.tell("look a d") == [[], ["d"]]
    other.tell("drop d")
    assert found(index, "d") == []
    other.tell("clear")
    assert [found(index, key) for key in "bc"] == [[], []]
    run(index.add(row("b", vector_of("b"))))
    assert other.tell("look b c") == [["b"], []]


def test_two_processes_write_at_the_same_time(index, other):
    """Every row of both is there once, whoever held the lock."""
    names = [f"n{number}" for number in range(200)]
    other.process.stdin.write("add " + " ".join(names) + "\n")
    other.process.stdin.flush()
    for number in range(200):
        run(index.add(row(f"m{number}", vector_of(f"m{number}"))))
    assert json.loads(other.process.stdout.readline()) == [[name] for name in names]
    assert run(index.count("p")) == 400
    assert all(found(index, f"{who}{number}") == [f"{who}{number}"] for who in "nm" for number in range(0, 200, 9))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 is POSIX's")
def test_kill_9_loses_nothing_that_was_acknowledged_and_raises_no_dead(tmp_path):
    """Two writers at a time, killed in the middle of adding, dropping and writing files: rows are there, dropped ones are not."""
    done = subprocess.run([*WORKERS, "kills", str(tmp_path / "home"), "6"], cwd=ROOT, capture_output=True, text=True, check=True)
    said = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    words = {what: {key for kind, key in said if kind == what} for what in ("added", "dropping", "dropped", "lost", "risen")}
    assert (words["lost"], words["risen"]) == (set(), set())
    assert len(words["added"]) > 80
    home = Home(tmp_path / "home")
    index = SqliteVectors(home, on_trouble=pytest.fail)
    for key in words["added"] - words["dropping"]:
        assert found(index, key) == [key]
    for key in words["dropped"]:
        assert found(index, key) == []
    index.close()
    home.close()
    con = sqlite3.connect(tmp_path / "home" / "vectors.db")
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_forked_child_begins_anew(index):
    """Parent and child go on with what is there, each with connections and threads of its own."""
    run(index.add(row("a", vector_of("a"))))
    assert found(index, "a") == ["a"]
    pid = os.fork()
    if pid == 0:
        try:
            run(index.add(row("b", vector_of("b"))))
            os._exit(0 if (found(index, "a"), found(index, "b")) == (["a"], ["b"]) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert (found(index, "a"), found(index, "b")) == (["a"], ["b"])
