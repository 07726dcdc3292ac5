"""Keys: made, shown once, found, revoked, by several processes on one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from nbllm.cli import main
from nbllm.errors import ConfigurationError, InvalidRequest, StorageError
from nbllm.redaction import redact
from nbllm.service import keys as keys_module
from nbllm.service.app import create_app
from nbllm.service.keys import FILE_VARIABLE, KEY_VARIABLE, KeyStore, open_keys
from tests.service.raw import ask as ask_raw
from tests.service.running import running, write_settings


class Clock:
    """A clock that is set by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


def store(path: Path, **environ: str) -> KeyStore:
    return KeyStore(path, environ=environ)


def test_a_key_is_found_and_is_nowhere_in_the_file(path: Path) -> None:
    """What is kept is a hash: the file, its folder's other files and the redacted log know no key."""
    keys = store(path)
    text, made = keys.make("gold", note="for Ann")
    found = keys.verify(text)
    assert found is not None
    assert (found.id, found.tier, found.note) == (made.id, "gold", "for Ann")
    assert text.startswith(f"nbllm_{made.id}_")
    assert len(text.encode()) >= 32
    secret = text.split("_", 2)[2][:20]
    assert all(secret not in file.read_text() for file in path.parent.iterdir())
    assert text not in redact(f"the key {text} in a log")


@pytest.mark.skipif(os.name != "posix", reason="modes as POSIX has them")
def test_the_file_is_the_owners_alone(path: Path) -> None:
    """Folder 0700, file 0600, also after a change."""
    keys = store(path)
    keys.make()
    keys.make()
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".new"] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t.upper(),
        lambda t: t[:0],
        lambda t: t[:15],
        lambda t: "ü" * len(t),
        lambda t: t.replace("nbllm", "nbllM"),
        lambda t: t + "\udcff",
    ],
)
def test_what_is_not_quite_a_key_is_none(path: Path, change: object) -> None:
    """A cut, longer or otherwise changed key is unknown."""
    keys = store(path)
    text, _ = keys.make()
    assert keys.verify(change(text)) is None  # type: ignore[operator]
    assert keys.verify(text) is not None


def test_a_secret_of_one_key_with_the_id_of_another_is_none(path: Path) -> None:
    """The id only says which row is compared."""
    keys = store(path)
    one, two = keys.make()[0], keys.make()[0]
    assert keys.verify(one[:15] + two[15:]) is None


def test_a_running_service_sees_changes_of_others(path: Path) -> None:
    """A key that another process made or revoked counts within a quarter of a second."""
    clock = Clock()
    running = KeyStore(path, environ={}, now_s=clock)
    other = store(path)
    text, key = other.make()
    assert running.verify(text) is not None
    other.revoke(key.id)
    clock.now_s += 0.3
    assert running.verify(text) is None
    path.unlink()
    clock.now_s += 0.3
    assert running.list() == ()


def test_a_new_key_works_at_once(path: Path) -> None:
    """A service that has just looked looks again for a key that it does not know; wrong ones do not have it look all the time."""
    clock = Clock()
    running = KeyStore(path, environ={}, now_s=clock)
    other = store(path)
    known = other.make()[0]
    assert running.verify(known) is not None
    clock.now_s += 0.03
    text = other.make()[0]
    assert running.verify(text) is not None
    path.write_text("broken")
    looks = 0
    read = keys_module._read

    def counted(where: Path) -> dict[str, keys_module.Key]:
        nonlocal looks
        looks += 1
        return read(where)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keys_module, "_read", counted)
        for _ in range(100):
            clock.now_s += 0.001
            assert running.verify(f"nbllm_00000000_{'x' * 43}") is None
    assert looks <= 5
    assert running.verify(known) is not None


def test_a_revoked_key_stays_revoked(path: Path) -> None:
    """Revoking names what it revoked; a second time there is no such key."""
    keys = store(path)
    text, key = keys.make()
    assert keys.revoke(key.id).id == key.id
    assert keys.verify(text) is None
    with pytest.raises(InvalidRequest, match=key.id):
        keys.revoke(key.id)


def test_many_who_make_keys_at_once_lose_none(path: Path) -> None:
    """Threads and processes that make keys on one file at once each keep theirs."""
    code = f"import pathlib, nbllm.service.keys as k\nfor _ in range(5): k.KeyStore(pathlib.Path({str(path)!r})).make()"
    process = subprocess.Popen([sys.executable, "-c", code])
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: store(path).make()[0], range(12)))
    assert process.wait(60) == 0
    keys = store(path)
    assert len(keys.list()) == 17
    assert all(keys.verify(text) for text in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"keys": [{"id": "a"}]}',
        '{"keys": [{"id": "a", "sha256": "zz", "tier": "x", "made_at": 0}]}',
        "[" * 5000,
        '{"keys": 5}',
    ],
)
def test_a_file_that_is_none_of_ours_is_said_and_kept(path: Path, text: str) -> None:
    """Nobody gets in by a broken file, it is named in the message, and making a key does not overwrite it."""
    path.parent.mkdir()
    path.write_text(text)
    assert store(path).verify("x" * 40) is None
    for use in (lambda: store(path).list(), lambda: store(path).make()):
        with pytest.raises(ConfigurationError, match="holds no keys"):
            use()
    assert path.read_text() == text


def test_a_file_that_breaks_leaves_the_keys_that_were_known(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A caller of a running service is not refused for what happened to a file; the log says it once, and listing does."""
    text, key = store(path).make()
    now_s = [0.0]
    running = KeyStore(path, environ={}, now_s=lambda: now_s[0])
    assert running.verify(text) == key
    whole = path.read_text()
    path.write_text("{")
    for _ in range(5):
        now_s[0] += 10
        assert running.verify(text) == key
    assert caplog.text.count("go on working") == 1
    with pytest.raises(ConfigurationError, match="holds no keys"):
        running.list()
    path.write_text(whole)
    running.revoke(key.id)
    now_s[0] += 10
    assert running.verify(text) is None


def test_a_disk_that_is_full_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new file cannot be written, the old keys go on working and nothing half-written is left."""
    keys = store(path)
    text, _ = keys.make()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        keys.make()
    assert keys.verify(text) is not None
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.lock"]


def test_a_key_of_ones_own_works_beside_the_file(path: Path) -> None:
    """NBLLM_SERVICE_KEY is one more key, of the default tier, that cannot be revoked by command."""
    own = "k" * 15 + "0123456789" * 3
    keys = store(path, **{KEY_VARIABLE: own})
    found = keys.verify(own)
    assert found is not None
    assert (found.id, found.tier) == ("env", "default")
    assert keys.verify(own[:-1]) is None
    text, _ = keys.make()
    assert {key.id for key in keys.list()} == {"env", text[6:14]}
    with pytest.raises(InvalidRequest, match=KEY_VARIABLE):
        keys.revoke("env")


@pytest.mark.parametrize("own", ["short", "with space " * 5, "ü" * 40, "nbllm_12345678_" + "a" * 43])
def test_a_weak_key_of_ones_own_is_refused(path: Path, own: str) -> None:
    """A key that is short or no plain ASCII stops the start; the message does not repeat it."""
    with pytest.raises(ConfigurationError) as refused:
        store(path, **{KEY_VARIABLE: own})
    assert own not in str(refused.value)


def test_where_the_file_is(tmp_path: Path) -> None:
    """The variable wins over the settings, these over the home."""
    assert open_keys(tmp_path, "", {}).path == tmp_path / "service-keys.json"
    assert open_keys(tmp_path / ".state", "", {}, folder=tmp_path).path == tmp_path / ".state" / "service-keys.json"
    assert open_keys(tmp_path, "/etc/k.json", {}).path == Path("/etc/k.json")
    assert open_keys(tmp_path, "/etc/k.json", {FILE_VARIABLE: "/run/k.json"}).path == Path("/run/k.json")


def test_the_file_is_json_that_a_person_can_read(path: Path) -> None:
    """One row a key: id, hash, tier, when, note."""
    store(path).make("gold", note="for Ann")
    (row,) = json.loads(path.read_text())["keys"]
    assert set(row) == {"id", "sha256", "tier", "made_at", "note"}


def test_apps_that_share_a_home_share_no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is made for one app opens no other on the same home, however alike their names are, equal ones included."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    texts: dict[str, str] = {}
    for name in ("a-b", "a b", "other/a-b", "other/a b"):
        write_settings(tmp_path / name)
        texts[name] = _made(tmp_path / name)
    for name in texts:
        keys = create_app(settings=tmp_path / name / "settings.toml").state.service.keys
        assert [other for other, text in texts.items() if keys.verify(text)] == [name]
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert create_app(settings=tmp_path / "link" / "a-b" / "settings.toml").state.service.keys.verify(texts["other/a-b"])


def test_keys_of_before_that_opened_several_apps_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file named after the folder alone opens nothing any more; the list says so until there are keys of the app's own."""
    home, folder = tmp_path / "home", tmp_path / "app"
    monkeypatch.setenv("NBLLM_HOME", str(home))
    text, _ = KeyStore(home / "service-keys-app.json", environ={}).make()
    write_settings(folder)
    assert create_app(settings=folder / "settings.toml").state.service.keys.verify(text) is None
    assert main(["keys", "list", str(folder)]) == 0
    assert "service-keys-app.json count no more" in capsys.readouterr().out
    _made(folder)
    assert main(["keys", "list", str(folder)]) == 0
    assert "count no more" not in capsys.readouterr().out


def _made(folder: Path) -> str:
    """A key that `nbllm keys` makes for the app of a folder."""
    with redirect_stdout(StringIO()) as out:
        assert main(["keys", "make", str(folder)]) == 0
    return out.getvalue().strip()


def test_a_key_of_a_tier_that_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tier that the settings name no more does not become another, which may have no limit: its keys get 403, and it is said."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "app"
    write_settings(folder, '[service.tiers.poor]\nday_usd = "0.01"')
    assert main(["keys", "make", str(folder), "--tier", "poor"]) == 0
    text = capsys.readouterr().out.strip()
    for tier, status in (("poor", 200), ("rich", 403)):
        write_settings(folder, f'[service.tiers.{tier}]\nday_usd = "0.01"')
        with running(create_app(settings=folder / "settings.toml")) as it:
            answer = ask_raw(it, "/v1/models", headers={"Authorization": f"Bearer {text}"})
            assert answer.status == status
            assert ask_raw(it, "/metrics", headers=it.headers).status == 200
    assert answer.json["error"]["code"] == "no_such_tier"
    capsys.readouterr()
    assert main(["keys", "list", str(folder)]) == 0
    assert "poor (not in the settings: refused)" in capsys.readouterr().out
