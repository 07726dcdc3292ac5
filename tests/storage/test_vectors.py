"""The vector index on one home: damage, files, memory and limits."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nbllm.errors import StorageError
from nbllm.storage import vector_blocks, vector_loaded, vector_partition, vector_rows
from nbllm.storage.home import Home
from nbllm.storage.vectors import SqliteVectors
from tests.client.helpers import until
from tests.storage.vector_making import DIMENSIONS, ROWS, VECTORS, add_all, filled, found_all, keys, near, opened, row, run


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 256 rows, and care at once, so that a few hundred rows make files."""
    monkeypatch.setattr(vector_blocks, "BLOCK_ROWS", 256)
    monkeypatch.setattr(vector_partition, "BLOCK_ROWS", 256)
    monkeypatch.setattr(vector_blocks, "EXACT_ROWS", 64)
    monkeypatch.setattr(vector_partition, "EXACT_ROWS", 64)
    monkeypatch.setattr(vector_loaded, "CARE_EVERY_S", 0.0)


def settled(index: SqliteVectors) -> None:
    """Search once and wait for the care that follows."""
    search_and_rest(index)
    index.close()


def search_and_rest(index: SqliteVectors, partition: str = "p") -> None:
    run(index.nearest(partition, VECTORS[0]))
    while index._loaded._caring:
        time.sleep(0.001)


def files(home: Home) -> list[Path]:
    return sorted((home.path / "vectors").glob("*"))


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_files_are_private(home, small_blocks):
    """0600, in folders of 0700."""
    settled(filled(home))
    assert stat.S_IMODE((home.path / "vectors").stat().st_mode) == 0o700
    there = [path for path in home.path.rglob("*") if path.is_file() and "vectors" in str(path.relative_to(home.path))]
    assert len(there) >= 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in there} == {0o600}


def test_an_index_is_the_same_after_it_was_closed(home, small_blocks):
    """Whole blocks come from files, the rest from rows; nothing is lost or there twice."""
    settled(filled(home))
    assert [path.name for path in files(home)] == ["1-0-256.block", "1-256-512.block"]
    index = opened(home)
    found_all(index)
    assert keys(run(index.nearest("p", VECTORS[5], ROWS, at_least=-1.0))).count("k5") == 1
    assert index.stats().memory_bytes > 0
    index.close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def from_elsewhere(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:24] = b"0" * 16  # the token of the file of rows
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, change, empty, from_elsewhere, Path.unlink])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_block_is_made_anew_from_rows(home, small_blocks, harm, which):
    """Cut in half, one bit flipped, empty, of another index, gone: all rows are found, and a whole file is there again."""
    settled(filled(home))
    whole = [path.read_bytes() for path in files(home)]
    harm(files(home)[which])
    index = opened(home, on_trouble=pytest.fail)
    found_all(index)
    settled(index)
    assert [path.read_bytes() for path in files(home)] == whole


def test_a_database_cut_in_half_is_set_aside_with_one_word_to_the_user(home, small_blocks):
    """The next search finds nothing, the next row is kept, files of the old rows are gone; nobody's call fails."""
    settled(filled(home))
    cut(home.path / "vectors.db")
    told: list[str] = []
    index = opened(home, on_trouble=told.append)
    for number in range(20):
        try:
            run(index.nearest("p", VECTORS[number]))
        except StorageError as exc:
            told.append(str(exc))
    run(index.add(row("new", VECTORS[3])))
    assert keys(run(index.nearest("p", VECTORS[3]))) == ["new"]
    assert any("damaged" in text for text in told)
    assert len(told) <= 2
    index.close()
    assert list(home.path.glob("vectors.db.damaged-*"))


def test_a_database_of_garbage_is_set_aside(home):
    """Not a database at all: begun anew."""
    filled(home).close()
    (home.path / "vectors.db").write_bytes(b"garbage" * 1000)
    for suffix in ("-wal", "-shm"):
        (home.path / f"vectors.db{suffix}").unlink(missing_ok=True)
    index = opened(home)
    assert run(index.nearest("p", VECTORS[0])) == []
    run(index.add(row("new", VECTORS[3])))
    assert keys(run(index.nearest("p", VECTORS[3]))) == ["new"]
    index.close()


def test_a_damaged_vector_harms_only_its_own_row(home):
    """A row whose vector was cut short by hand is not found; the others are."""
    index = filled(home)
    con = sqlite3.connect(home.path / "vectors.db", isolation_level=None)
    con.execute("UPDATE rows SET vector = x'00' WHERE key = 'k7'")
    con.close()
    found_all(index, but=frozenset({7}))
    index.close()


def test_what_was_forgotten_leaves_no_copy(home, small_blocks):
    """Neither the question nor the coordinates are in any file, and those of its neighbours still are."""
    settled(filled(home))
    index = opened(home)
    run(index.add(row("secret", VECTORS[1], question="How do I leave my sect?")))
    settled(index)
    index = opened(home)
    coordinates = vector_blocks.encode(vector_rows._unit((vector.astype("<f2").tobytes() for vector in VECTORS[:21]), DIMENSIONS))[
        1
    ]
    assert any(coordinates[20].tobytes() in path.read_bytes() for path in files(home))
    assert run(index.drop("secret", "k20")) == 2
    index.close()
    for path in [*files(home), *home.path.glob("vectors.db*")]:
        data = path.read_bytes()
        assert b"leave my sect" not in data
        assert coordinates[20].tobytes() not in data
        assert VECTORS[20].astype("<f2").tobytes() not in data
    assert coordinates[19].tobytes() in files(home)[0].read_bytes()
    index = opened(home)
    found_all(index, but=frozenset({20}))
    index.close()
    assert len(files(home)) == 2


def test_dropping_a_partition_drops_its_files(home, small_blocks):
    """Of that partition only; what a killed process had left half written goes, too."""
    index = filled(home)
    search_and_rest(index)
    run(add_all(index, VECTORS[:300], "other"))
    search_and_rest(index, "other")
    index.close()
    (home.path / "vectors" / "1-0-256.block.abcd.new").write_bytes(b"half")
    assert {path.name[0] for path in files(home)} == {"1", "2"}
    index = opened(home)
    assert run(index.drop_partition("p")) == ROWS
    assert {path.name for path in files(home)} == {"2-0-956.block"}
    assert keys(run(index.nearest("other", VECTORS[9], 1))) == ["k9"]
    assert run(index.count()) == 300
    index.close()


def test_what_a_killed_process_had_left_half_written_goes_at_the_next_start(home, small_blocks):
    """Once it is old enough that nobody can still be at it."""
    settled(filled(home))
    old, new = home.path / "vectors" / "1-0-9.block.aa.new", home.path / "vectors" / "1-0-9.block.bb.new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    settled(opened(home))
    assert (old.exists(), new.exists()) == (False, True)


def test_rows_of_a_partition_whose_dropping_was_killed_are_never_found_and_go_next_time(home):
    """The name goes first, in one commit."""
    index = filled(home)
    con = sqlite3.connect(home.path / "vectors.db", isolation_level=None)
    con.execute("DELETE FROM partitions")
    assert run(index.nearest("p", VECTORS[0])) == []
    assert run(index.count()) == 0
    run(index.drop_partition("another"))
    assert con.execute("SELECT count(*) FROM rows").fetchone() == (0,)
    con.close()
    index.close()


def test_most_of_it_dropped_is_compacted(home, small_blocks):
    """Dead rows take neither memory nor disk for long, and the rest is found."""
    index = filled(home)
    search_and_rest(index)
    gone = [number for number in range(ROWS) if number % 4]
    assert run(index.drop(*(f"k{number}" for number in gone))) == len(gone)
    settled(index)
    assert files(home) == []  # 175 rows fit into one block, to which more will be added
    index = opened(home)
    found_all(index, but=frozenset(gone))
    index.close()


def test_another_process_deleted_nearly_all(home):
    """Rows that are gone from the file are passed over, however many of them come first; the memory follows."""
    index = filled(home)
    found_all(index)
    con = sqlite3.connect(home.path / "vectors.db", isolation_level=None)
    con.execute("DELETE FROM rows WHERE key <> 'k699'")
    con.close()
    query = near(np.random.default_rng(12), VECTORS[3:4], np.array([0.9]))[0]
    assert keys(run(index.nearest("p", query, 8, at_least=-1.0))) == ["k699"]
    index.close()


def test_partitions_not_used_for_longest_are_let_go_of(home):
    """Memory stays below the limit; what was let go of is read again when it is asked for."""

    async def many() -> None:
        for number in range(12):
            await add_all(index, VECTORS[:50], f"p{number}")
        for _ in range(2):
            for number in range(12):
                assert keys(await index.nearest(f"p{number}", VECTORS[7], 1)) == ["k7"]
                assert index.stats().memory_bytes <= 100_000

    index = opened(home, memory_bytes=100_000)
    run(many())
    index.close()


def test_two_looks_at_the_limit_drop_no_more_than_one(home, monkeypatch):
    """Two threads, or processes, that find too many rows at the same moment leave as many as there may be."""
    index = filled(home, limit_rows=250)
    both, counted = threading.Barrier(2), index._db.read

    def counted_by_both(work):
        found = counted(work)
        both.wait(30)
        return found

    monkeypatch.setattr(index._db, "read", counted_by_both)
    looks = [threading.Thread(target=index._trim) for _ in range(2)]
    for look in looks:
        look.start()
    for look in looks:
        look.join(30)
    monkeypatch.undo()
    assert run(index.count()) == 250
    index.close()


def test_the_rows_that_came_first_go_first_when_there_are_too_many(home, monkeypatch):
    """The limit holds after the next look at it."""
    monkeypatch.setattr("nbllm.storage.vectors._TRIM_EVERY", 100)
    index = opened(home, limit_rows=250)
    run(add_all(index, VECTORS))
    until(lambda: len(run(index.keys())) < 400)  # a thread looks
    index.close()
    index = opened(home, limit_rows=250)
    left = [key for _, key in run(index.keys())]
    assert 250 <= len(left) < 400
    assert left[-1] == f"k{ROWS - 1}"
    index.close()
