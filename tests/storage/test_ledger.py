from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Filter
from nbllm.core.why import Why
from nbllm.errors import StorageError
from nbllm.storage import ledger_columns
from nbllm.storage.ledger_rows import insert_call
from nbllm.storage.ledger_schema import MIGRATIONS
from nbllm.storage.open import open_storage
from nbllm.storage.packing import Names
from tests.storage.locking import locked
from tests.storage.rows import NOW, attempt, call, open_attempt, open_call

D = Decimal


@pytest.fixture
def storage(tmp_path):
    storage = open_storage(tmp_path / "home", session="s1")
    yield storage
    storage.close()


def test_the_view_for_pandas_and_plain_sql(tmp_path, storage):
    """One row a call, with its cost as a number, NULL where a part of it is unknown."""
    import pandas as pd

    ledger = storage.ledger
    exact, unknown, estimated = call(started_at=NOW), call(started_at=NOW + 1), call(started_at=NOW + 2)
    hit = call(started_at=NOW + 3, source="cache", saved_usd=D("0.5"))
    ledger.add_many(
        [
            (exact, [attempt(exact, cost_usd=D("0.25")), attempt(exact, number=2, cost_usd=D("0.5"))]),
            (unknown, [attempt(unknown, cost_usd=D(1)), attempt(unknown, number=2, cost_usd=None, cost_basis="unknown")]),
            (estimated, [attempt(estimated, cost_usd=D("0.125"), cost_basis="estimated")]),
            (hit, []),
        ]
    )
    con = sqlite3.connect(tmp_path / "home" / "ledger.db")
    frame = pd.read_sql("SELECT * FROM calls_with_cost ORDER BY started_at", con)
    con.close()
    assert frame["cost_usd"].fillna(-1).tolist() == [0.75, -1, 0.125, 0]
    assert frame["cost_basis"].tolist() == ["exact", "unknown", "estimated", "exact"]
    assert frame["attempts"].tolist() == [2, 2, 1, 0]
    assert frame["started"].tolist()[0] == "2026-09-21 14:13:20"
    assert frame["saved_usd"].fillna(0).tolist() == [0, 0, 0, 0.5]


def test_no_text_and_no_secret_is_kept(tmp_path, storage):
    """Names that users choose pass the redactor; the file holds what is left."""
    secret = "sk-proj-" + "a1B2c3D4" * 6
    row = call(
        feature=secret,
        user=f"me {secret}",
        model=secret,
        rung=secret,
        why=Why(route=secret, reason=f"because {secret}", plan_id=secret),
    )
    storage.ledger.add_many([(row, [attempt(row, rung=secret, model=secret)])])
    storage.close()
    for path in (tmp_path / "home").rglob("*.db*"):
        assert secret.encode() not in path.read_bytes()


def test_every_process_row_and_name_survives_a_damaged_file(tmp_path):
    """A damaged ledger is kept under another name, and the same process goes on in a new one, numbers of names included."""
    told: list[str] = []
    storage = open_storage(tmp_path / "home", session="s1", on_trouble=told.append)
    storage.ledger.add_many((call(feature=f"f{number % 3}"), []) for number in range(2000))
    storage.ledger._db.close()
    path = tmp_path / "home" / "ledger.db"
    path.write_bytes(path.read_bytes()[:8192])
    again = open_storage(tmp_path / "home", session="s1", on_trouble=told.append)
    for number in range(6):
        written = again.ledger.add_call(call(feature=f"f{number % 2}"))
        if written is not None:
            written.result(30)
    assert {row.group: row.calls for row in again.ledger.usage("feature", Filter())} == {"f0": 3, "f1": 3}
    assert len(told) == 1
    assert "ledger.db.damaged-" in told[0]
    assert len(list((tmp_path / "home").glob("ledger.db.damaged-*"))) >= 1
    again.close()
    storage.close()


def test_a_locked_ledger_is_read_and_its_rows_wait(tmp_path, storage):
    """While another program holds the lock, reading works, rows queue, and nothing is lost."""
    ledger = storage.ledger
    first = open_call()
    ledger.open_call(first)
    with locked(tmp_path / "home" / "ledger.db"):
        new = open_call(feature="new name", session="new session")
        waiting = [
            ledger.open_call(new),
            ledger.open_attempt(open_attempt(new, attempt_id="a")),
            ledger.close_attempt(attempt(new, attempt_id="a")),
            ledger.close_call(replace(new, status=AttemptStatus.DONE, rung="another/model")),
            ledger.close_call(replace(first, status=AttemptStatus.DONE)),
        ]
        assert None not in waiting
    for written in waiting:
        written.result(30)
    assert {row.status for row in ledger.calls(Filter(), limit=5)} == {AttemptStatus.DONE}
    assert {row.group for row in ledger.usage("feature", Filter())} == {"summaries", "new name"}
    assert ledger.attempts(new.call_id) == [attempt(new, attempt_id="a")]


def test_a_ledger_that_stays_locked_says_so_in_the_future(tmp_path, storage, monkeypatch):
    """Whoever waits for its row goes on after a moment; usage still answers from what is committed."""
    from nbllm.storage import sqlite

    monkeypatch.setattr(sqlite, "ROW_WAIT_S", 0.05)
    ledger = storage.ledger
    ledger.add_call(call())
    with locked(tmp_path / "home" / "ledger.db"):
        with pytest.raises(StorageError, match="locked"):
            ledger.add_call(call()).result(30)
        monkeypatch.setattr(ledger._db, "flush", lambda *_: False)
        assert ledger.usage("total", Filter())[0].calls == 1


def test_the_first_migration_is_never_rewritten():
    """Its tables are what released files hold: a change is a new migration. If this fails, undo the change to _first."""
    import hashlib

    con = sqlite3.connect(":memory:")
    MIGRATIONS[0](con)
    schema = "\n".join(sql for (sql,) in con.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"))
    con.close()
    assert hashlib.sha256(schema.encode()).hexdigest()[:16] == "fedca116c40854fb"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_ledger_of_an_older_release_goes_on(tmp_path, version):
    """Rows that were written before a column existed are read, with nothing in it, and new rows are written beside them."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    con = sqlite3.connect(home / "ledger.db")
    (home / "ledger.db").chmod(0o600)
    for migration in MIGRATIONS[:version]:
        migration(con)
    con.execute(f"PRAGMA user_version = {version}")
    old = call(started_at=NOW - 1)
    con.execute(*insert_call(1 << 32 | 1, "1-gone", old, Names(0, 0, 0, 0)))
    con.execute("INSERT INTO processes (number, token, session, started_at) VALUES (1, '1-gone', 's1', 1.0)")
    con.commit()
    con.close()
    storage = open_storage(home, session="s1", on_trouble=pytest.fail)
    new = call(cell_id="c", notebook="n")
    storage.ledger.add_call(new)
    assert storage.ledger.calls(Filter(), limit=9) == [new, old]
    storage.close()


def test_a_ledger_of_a_newer_release_goes_on_where_that_only_added(tmp_path, monkeypatch):
    """A release that does not know where in a notebook a call was made shares the file with one that does; one before may not."""
    home, rows = tmp_path / "home", [call(cell_id="c", notebook="n"), call(started_at=NOW + 1), call(started_at=NOW + 2)]
    for known, row in zip((4, 3, 4), rows, strict=True):
        monkeypatch.setattr("nbllm.storage.ledger.MIGRATIONS", MIGRATIONS[:known])
        storage = open_storage(home, session="s1", on_trouble=pytest.fail)
        storage.ledger.add_call(row)
        storage.close()
    storage = open_storage(home, session="s1", on_trouble=pytest.fail)
    assert storage.ledger.calls(Filter(), limit=9) == rows[::-1]
    storage.close()
    monkeypatch.setattr("nbllm.storage.ledger.MIGRATIONS", MIGRATIONS[:2])
    storage = open_storage(home, session="s1")
    with pytest.raises(StorageError, match="newer nbllm"):
        storage.ledger.calls(Filter(), limit=9)
    storage.close()


def test_the_documented_columns_are_the_real_ones():
    """docs/ledger.md names every column of every table and of the view."""
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    con = sqlite3.connect(":memory:")
    for migration in MIGRATIONS:
        migration(con)
    for name in ("calls", "attempts", "names", "processes", "marks", "calls_with_cost"):
        assert f"`{name}`" in text
        for _, column, *_ in con.execute(f"PRAGMA table_info({name})"):
            assert f"`{column}`" in text, f"{name}.{column}"
    con.close()


def test_many_calls_are_summed_and_read_like_few(storage):
    """Twenty thousand rows, in ranges and by groups, come out as plain Python counts them (how fast is `make bench`'s to say)."""
    ledger, count = storage.ledger, 20_000

    def rows():
        for number in range(count):
            row = call(started_at=NOW + number * 5, feature=f"f{number % 50}", latency_s=number % 1000 / 100)
            yield row, (attempt(row),)

    ledger.add_many(rows())
    series = ledger.series(Filter())
    assert series.latency_s.tolist() == [number % 1000 / 100 for number in range(count)]
    since = ledger.series(Filter(model="sim/*", since=NOW + 5 * 15_000))
    assert since.started_at.tolist() == [NOW + number * 5 for number in range(15_000, count)]
    assert {row.group: row.calls for row in ledger.usage("feature", Filter())} == {f"f{n}": count // 50 for n in range(50)}
    assert sum(row.calls for row in ledger.usage("day", Filter())) == count
    newest = ledger.calls(Filter(), limit=20)
    assert [row.started_at for row in newest] == [NOW + number * 5 for number in range(count - 1, count - 21, -1)]
    (total,) = ledger.usage("total", Filter(feature="f7"))
    assert (total.calls, total.cost_usd) == (count // 50, count // 50 * D("0.001234567890"))


def test_calls_of_several_processes_are_read_in_few_pieces(tmp_path, monkeypatch):
    """Rows of processes that wrote by turns come in order of time, each with its own numbers, read in a few pieces."""
    for turn in range(3):
        storage = open_storage(tmp_path / "home", session=f"s{turn}")
        made = [call(started_at=NOW + 3 * n + turn, latency_s=float(3 * n + turn)) for n in range(120)]
        storage.ledger.add_many((row, [attempt(row, cost_usd=D(int(row.latency_s)))]) for row in made)
        storage.close()
    storage = open_storage(tmp_path / "home", session="s9")
    with closing(sqlite3.connect(tmp_path / "home" / "ledger.db")) as con:
        assert [len(ledger_columns._ranges(con, table, 0, 2**63 - 1)) for table in ("calls", "attempts")] == [1, 1]
        monkeypatch.setattr(ledger_columns, "_CHUNK", 100)
        assert [len(ledger_columns._ranges(con, table, 0, 2**63 - 1)) for table in ("calls", "attempts")] == [4, 4]
    series = storage.ledger.series(Filter())
    storage.close()
    assert series.started_at.tolist() == [NOW + n for n in range(360)]
    assert series.latency_s.tolist() == series.cost_usd.tolist() == list(range(360))


def noted(home: Path) -> list[bool]:
    """For each process, in order, whether it is noted that none of its rows is open."""
    con = sqlite3.connect(home / "ledger.db")
    found = [closed_at is not None for (closed_at,) in con.execute("SELECT closed_at FROM processes ORDER BY number")]
    con.close()
    return found


def test_who_closes_in_order_is_searched_by_nobody(tmp_path):
    """A process that leaves nothing open says so; one that leaves a call or an attempt open does not, and is searched once."""
    home = tmp_path / "home"
    for leaves in ("nothing", "a call", "an attempt"):
        storage = open_storage(home, session="s", on_trouble=pytest.fail)
        row, one = call(status=AttemptStatus.OPEN), None
        storage.ledger.open_call(row)
        if leaves != "a call":
            one = attempt(row, status=AttemptStatus.OPEN)
            storage.ledger.open_attempt(one)
            storage.ledger.close_call(replace(row, status=AttemptStatus.DONE))
        if leaves == "nothing":
            storage.ledger.close_attempt(replace(one, status=AttemptStatus.DONE))
        storage.close()
        if leaves == "nothing":
            assert noted(home) == [True]
    assert noted(home) == [True, True, False]  # the third process has searched the second's rows
    last = open_storage(home, session="s", on_trouble=pytest.fail)
    assert [row.status for row in last.ledger.calls(Filter(), limit=9)].count(AttemptStatus.UNKNOWN) == 1
    con = sqlite3.connect(home / "ledger.db")
    assert con.execute("SELECT count(*) FROM attempts WHERE status = 'unknown'").fetchone() == (1,)
    con.close()
    last.close()
    assert noted(home) == [True, True, True]
