from __future__ import annotations

import time

from nbllm.core.ports import Recording
from nbllm.storage.home import Home
from nbllm.storage.recordings import SqliteRecordings


def recording(number: int, text: str = "a", **changes) -> Recording:
    fields = {"prompt": {"q": text}, "answer": {"text": text}, "started_at": time.time() - 1000 + number} | changes
    return Recording(call_id=f"c{number}", model="m", **fields)


def test_secrets_are_masked_before_they_are_written(tmp_path):
    """Neither the file nor its log ever holds one."""
    home = Home(tmp_path / "home")
    recordings = SqliteRecordings(home)
    secret = "sk-proj-" + "a1B2c3D4" * 6
    recordings.keep(recording(1, f"my key is {secret}\nkeep it", flow={"key": secret})).result(30)
    assert secret not in str(recordings.get("c1"))
    for path in (tmp_path / "home").rglob("*.db*"):
        assert secret.encode() not in path.read_bytes()
    recordings.close()


def test_forgotten_texts_are_gone_from_the_files(tmp_path):
    """Overwritten and emptied from the log, not only unlinked."""
    home = Home(tmp_path / "home")
    recordings = SqliteRecordings(home)
    for number in range(50):
        recordings.keep(recording(number, "remember-me " * 300)).result(30)
    assert recordings.forget() == 50
    recordings.close()
    for path in (tmp_path / "home").rglob("*.db*"):
        assert b"remember-me" not in path.read_bytes()
        assert path.stat().st_size < 100_000


def test_the_oldest_go_first(tmp_path):
    """By age, then by size."""
    recordings = SqliteRecordings(Home(tmp_path / "home"), days=1.0, limit_bytes=500_000)
    recordings.keep(recording(0, started_at=time.time() - 2 * 86400)).result(30)
    for number in range(1, 101):
        written = recordings.keep(recording(number, "ten words " * 1000))
    written.result(30)
    kept = [one.call_id for one in recordings.newest(1000)]
    assert kept[0] == "c100"
    assert "c0" not in kept
    assert 10 <= len(kept) < 60
    assert kept == [f"c{number}" for number in range(100, 100 - len(kept), -1)]
    recordings.close()


def test_what_is_no_json_is_kept_as_text(tmp_path):
    """An argument of a flow may be any object; a recording of it is to be looked at."""
    recordings = SqliteRecordings(Home(tmp_path / "home"))
    recordings.keep(recording(1, flow={"path": tmp_path, "odd": "\ud800"})).result(30)
    assert recordings.get("c1").flow == {"path": str(tmp_path), "odd": "\ud800"}
    recordings.close()
