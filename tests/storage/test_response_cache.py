from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nbllm.core.ports import Stored
from nbllm.errors import StorageError
from nbllm.storage.entries import Damaged, decode, encode
from nbllm.storage.home import Home
from nbllm.storage.response_cache import DiskResponseStore
from tests.starvation import within


def entry(key: str = "k", text: str = "hello", **changes) -> Stored:
    base = Stored(
        key=key, model="m", created_at=time.time(), expires_at=None, answer={"text": text}, cost_usd=Decimal("0.1"), latency_s=1.0
    )
    return replace(base, **changes)


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    yield home
    home.close()


@pytest.fixture
def store(home):
    store = DiskResponseStore(home)
    yield store
    store.close()


def put(store, *entries: Stored) -> None:
    for one in entries:
        asyncio.run(store.put(one))


def by_hand(home: Home) -> sqlite3.Connection:
    return sqlite3.connect(home.data / "cache" / "cache.db", isolation_level=None)


def files(home: Home) -> set[str]:
    return {path.name for path in (home.data / "cache").rglob("*")}


def test_nothing_of_diskcache_is_loaded_before_the_first_use():
    """Importing storage, and opening it, imports neither diskcache nor numpy."""
    code = (
        "import sys; from nbllm.storage.open import open_storage; open_storage('x', session='s'); "
        "sys.exit(bool({'diskcache', 'numpy', 'pickle'} & set(sys.modules) - {'pickle'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_large_values_stay_in_the_file(home, store):
    """No side files, which a kill would orphan."""
    put(store, entry(text="x" * 3_000_000))
    assert len(store.get_now("k").answer["text"]) == 3_000_000
    assert files(home) <= {"cache.db", "cache.db-wal", "cache.db-shm"}


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_files_are_private(home, store):
    """Directory 0700, files 0600."""
    put(store, entry())
    directory = home.data / "cache"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


class Bomb:
    """Whoever unpickles this runs code."""

    def __reduce__(self):
        return (explode, ())


exploded: list[int] = []


def explode() -> None:
    """Say that a pickle was loaded."""
    exploded.append(1)


def test_pickled_rows_and_keys_are_refused(home, store):
    """A row written by hand with a pickle in it is a miss, set aside, and never unpickled; a pickled key never matches."""
    put(store, entry())
    con = by_hand(home)
    bomb = sqlite3.Binary(pickle.dumps(Bomb()))
    con.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = 'k'", (bomb,))
    con.execute(
        "INSERT INTO Cache (key, raw, store_time, access_time, tag, size, mode, value) VALUES (?, 0, 1, 1, ?, 0, 4, ?)",
        (bomb, bomb, bomb),
    )
    con.close()
    assert store.get_now("k") is None
    assert list(store.entries()) == []
    assert store.stats().damaged == 1
    put(store, entry())
    assert store.get_now("k") is not None
    assert exploded == []


def test_diskcaches_own_doors_are_closed_too(home, store):
    """Our Disk refuses to store and to fetch what would need pickle or a file."""
    put(store, entry())
    disk = store._cache._disk
    for value in ({"a": 1}, None, ["x"], True):
        with pytest.raises(TypeError):
            disk.store(value, read=False)
        with pytest.raises(TypeError):
            disk.put(value)
    for mode, name, value in ((4, None, b"x"), (2, "side.val", None), (3, "side.val", None), (1, "side.val", b"x")):
        with pytest.raises(Damaged):
            disk.fetch(mode, name, value, read=False)
    with pytest.raises(Damaged):
        disk.get(b"x", raw=False)
    with pytest.raises(Damaged):
        list(_with_pickled_key(home, store))


def _with_pickled_key(home, store):
    con = by_hand(home)
    con.execute("INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES (x'8004', 0, 1, 1, 1, 1)")
    con.close()
    return store._cache.iterkeys()


@pytest.mark.parametrize(
    "change",
    [
        "CAST(substr(value, 1, 30) || x'00' || substr(value, 32) AS BLOB)",
        "substr(value, 1, length(value) - 1)",
        "x''",
        "x'01'",
        "'text'",
        "17",
        "NULL",
        "CAST(x'02' || substr(value, 2) AS BLOB)",
    ],
)
def test_a_damaged_value_is_a_miss_and_set_aside(home, store, change):
    """Never a crash, never wrong content; the next put repairs it."""
    put(store, entry(), entry("other"))
    con = by_hand(home)
    con.execute(f"UPDATE Cache SET value = {change} WHERE key = 'k'")  # noqa: S608 - the test's own
    con.close()
    assert store.get_now("k") is None
    assert store.stats().damaged == 1
    assert store.stats().entries == 1
    assert store.get_now("other") is not None
    put(store, entry(text="again"))
    assert store.get_now("k").answer == {"text": "again"}


def test_a_value_under_another_key_is_damage(home, store):
    """The checksum covers the key: rows that changed places are not handed out."""
    put(store, entry("a", "of a"), entry("b", "of b"))
    con = by_hand(home)
    con.execute("UPDATE Cache SET value = (SELECT value FROM Cache WHERE key = 'a') WHERE key = 'b'")
    con.close()
    assert store.get_now("b") is None
    assert store.get_now("a").answer == {"text": "of a"}


@settings(max_examples=300)
@given(data=st.data())
def test_any_changed_byte_is_found(data):
    """Whatever byte is changed, decode refuses."""
    value = bytearray(encode(entry("k", "hello", created_at=1.0)))
    position = data.draw(st.integers(0, len(value) - 1))
    value[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        decode("k", bytes(value))


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(value):
    """Nothing but Damaged comes out of foreign bytes."""
    with pytest.raises(Damaged):
        decode("k", value)


@pytest.mark.parametrize("how", ["truncated", "no database"])
def test_a_damaged_file_is_set_aside(home, how):
    """The cache begins anew; the old file is kept."""
    store = DiskResponseStore(home)
    put(store, *(entry(f"k{number}", "x" * 3000) for number in range(50)))
    store.close()
    path = home.data / "cache" / "cache.db"
    content = path.read_bytes()
    path.write_bytes(content[:8192] if how == "truncated" else b"nonsense" * 2000)
    store = DiskResponseStore(home)
    assert store.get_now("k7") is None
    put(store, entry("new"))
    assert store.get_now("new") is not None
    assert any(".damaged-" in name for name in files(home))
    store.close()


def test_a_file_truncated_under_a_running_process(home, store):
    """No crash and nothing wrong: misses, then a new file."""
    put(store, *(entry(f"k{number}", f"{number}" * 3000) for number in range(50)))
    store._db._checkpoint()
    with (home.data / "cache" / "cache.db").open("r+b") as file:
        file.truncate(8192)
    for number in range(50):
        found = store.get_now(f"k{number}")
        assert found is None or found.answer == {"text": f"{number}" * 3000}
    for _ in range(3):
        try:
            put(store, entry("new"))
            break
        except StorageError:
            continue
    assert store.get_now("new") is not None


def test_the_least_recently_used_go_first(home):
    """What was read lately stays when the limit is reached, though reads write nothing."""
    store = DiskResponseStore(home, size_limit_bytes=400_000)
    put(store, *(entry(f"k{number}", "x" * 10_000) for number in range(25)))
    time.sleep(0.002)
    for number in range(5):
        assert store.get_now(f"k{number}") is not None
    put(store, *(entry(f"n{number}", "x" * 10_000) for number in range(20)))
    assert all(store.get_now(f"k{number}") for number in range(5))
    assert store.get_now("k10") is None
    assert store.stats().size_bytes <= 400_000
    store.close()


def test_a_lowered_limit_is_reached_a_little_with_each_put(home):
    """A file that is far over its limit shrinks until it is within it, however few puts a hundredth of the limit takes."""
    store = DiskResponseStore(home)
    put(store, *(entry(f"k{number}", "x" * 10_000) for number in range(300)))
    store.close()
    store = DiskResponseStore(home, size_limit_bytes=600_000)
    put(store, *(entry(f"n{number}", "x") for number in range(20)))
    assert store.stats().size_bytes <= 600_000
    assert store.get_now("n19") is not None
    store.close()


def test_access_times_survive_closing(home):
    """What was read in one session is not the first to go in the next."""
    store = DiskResponseStore(home)
    put(store, entry("old"), entry("older"))
    store.get_now("old")
    read_at = store._accessed["old"]
    store.close()
    con = by_hand(home)
    assert con.execute("SELECT access_time FROM Cache WHERE key = 'old'").fetchone() == (read_at,)
    con.close()


def test_a_value_larger_than_the_limit_does_not_empty_the_cache_for_ever(home):
    """It is kept alone, and makes room for the next."""
    store = DiskResponseStore(home, size_limit_bytes=200_000)
    put(store, entry("small"), entry("huge", "x" * 500_000))
    put(store, entry("next"))
    assert store.get_now("next") is not None
    assert store.stats().size_bytes <= 200_000
    store.close()


def test_an_absolute_age(home):
    """Past max_age_s an entry is a miss, whatever its own expiry; it does not serve as a stale one either."""
    store = DiskResponseStore(home, max_age_s=100)
    put(store, entry("young", created_at=time.time() - 50, expires_at=1.0), entry("old", created_at=time.time() - 150))
    assert store.get_now("young") is not None
    assert store.get_now("old") is None
    store.close()


def test_purging_gives_the_space_back(home, store):
    """The file shrinks."""
    put(store, *(entry(f"k{number}", "x" * 10_000) for number in range(100)))
    store.purge()
    store._db.empty_log_soon()
    store.close()
    assert (home.data / "cache" / "cache.db").stat().st_size < 100_000


def test_a_locked_cache_stalls_nobody(home, store):
    """Reads go on; a put waits on the side, and gives up with a StorageError."""
    from nbllm.storage import response_cache

    put(store, entry())
    other = by_hand(home)
    other.execute("BEGIN IMMEDIATE")

    async def run() -> None:
        with within(1.0):
            task = asyncio.ensure_future(store.put(entry("new")))
            await asyncio.sleep(0)
        assert store.get_now("k") is not None
        other.execute("ROLLBACK")
        await task
        assert store.get_now("new") is not None
        other.execute("BEGIN IMMEDIATE")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(response_cache, "PUT_WAIT_S", 0.05)
            with pytest.raises(StorageError, match="locked"):
                await store.put(entry("later"))
        other.execute("ROLLBACK")

    asyncio.run(run())
    other.close()


def test_opening_while_another_process_writes(home, store):
    """A second process opens an existing cache without the write lock, and hits."""
    put(store, entry())
    other = by_hand(home)
    other.execute("BEGIN IMMEDIATE")
    second = DiskResponseStore(home)
    assert second.get_now("k") is not None
    other.execute("ROLLBACK")
    other.close()
    second.close()


def test_an_answer_that_is_no_json_is_a_storage_error(store):
    """Said in words; the store goes on."""
    with pytest.raises(StorageError, match="cannot be cached"):
        put(store, entry(answer={"x": object()}))
    put(store, entry())
    assert store.get_now("k") is not None


def test_threads_read_and_write(store):
    """Eight threads at once: every read is right or a miss."""
    wrong: list[str] = []

    def work(name: int) -> None:
        for number in range(60):
            key = f"k{(name + number) % 10}"
            if number % 3 == 0:
                put(store, entry(key, key * 500))
            found = store.get_now(key)
            if found is not None and found.answer != {"text": key * 500}:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.stats().damaged == 0


def test_a_key_that_sqlite_cannot_take(store):
    """A lone surrogate in a key is a miss and a StorageError, not a crash."""
    assert store.get_now("\ud800") is None
    with pytest.raises(StorageError):
        put(store, entry("\ud800"))
