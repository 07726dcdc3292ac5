from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nbllm.errors import HomeUnusable
from nbllm.storage import home as home_module
from nbllm.storage.home import Home
from nbllm.storage.mounts import network_file_system
from nbllm.storage.open import open_storage

posix = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX's")


@posix
def test_directories_are_private(tmp_path):
    """0700, also where the directory was there before with a wider mode."""
    (tmp_path / "home").mkdir(mode=0o755)
    home = Home(tmp_path / "home")
    home.prepare()
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "run" / f"{home.token}.lock").stat().st_mode) == 0o600
    home.close()


@posix
def test_an_open_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    """A project folder that is named as the home keeps its mode and its files; the hint names a subfolder, which works."""
    project = tmp_path / "project"
    project.mkdir(mode=0o755)
    (project / "data.csv").write_text("a,b")
    (project / "cache").mkdir()  # a name of ours alone proves nothing
    with pytest.raises(HomeUnusable, match=r"data\.csv.*\n.*subfolder") as caught:
        Home(project).prepare()
    assert str(project / "nbllm") in caught.value.hint
    assert stat.S_IMODE(project.stat().st_mode) == 0o755
    assert {entry.name for entry in project.iterdir()} == {"data.csv", "cache"}
    below = Home(project / "nbllm")
    below.prepare()
    assert stat.S_IMODE(project.stat().st_mode) == 0o755


@posix
@pytest.mark.parametrize("mark", ["ledger.db", "state.db", "run/"])
def test_a_home_that_was_opened_to_others_is_made_private_again(tmp_path, mark):
    """What holds our files is ours, whatever else is in it; a folder with our subfolders alone is ours too."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    if mark.endswith("/"):
        (home / mark).mkdir()
    else:
        (home / mark).touch()
        (home / "notes.txt").touch()
    Home(home).prepare()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_nothing_is_touched_before_the_first_use(tmp_path):
    """Opening storage makes no file and no directory."""
    storage = open_storage(tmp_path / "home", session="s")
    storage.close()
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_link_is_refused(tmp_path):
    """Whoever made the link would own what is kept."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(HomeUnusable, match="symbolic link"):
        Home(tmp_path / "link").prepare()
    assert list((tmp_path / "real").iterdir()) == []


def test_a_file_is_refused(tmp_path):
    """A home is a directory, and lies below directories."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(HomeUnusable, match="not a directory"):
        Home(tmp_path / "file").prepare()
    with pytest.raises(HomeUnusable, match="not a directory"):
        Home(tmp_path / "file" / "below").prepare()


@posix
def test_the_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    """Even where the mode would let us write."""
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(HomeUnusable, match=r"another user.*\n.*NBLLM_HOME"):
        Home(tmp_path / "home").prepare()


@pytest.mark.parametrize(("code", "words"), [("EACCES", "cannot be written"), ("EROFS", "read-only"), ("ENOSPC", "full disk")])
def test_an_unwritable_home_says_why(tmp_path, monkeypatch, code, words):
    """The system's refusal becomes one sentence and what to do."""
    import errno

    def refuse(self, *args, **kwargs):
        raise OSError(getattr(errno, code), "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(HomeUnusable, match=f"{words}.*\n.*local disk"):
        Home(tmp_path / "home").prepare()


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root writes anywhere")
def test_a_directory_without_write_permission(tmp_path):
    """A mode that forbids writing is found out at once."""
    (tmp_path / "home").mkdir(mode=0o500)
    with pytest.raises(HomeUnusable, match="cannot be written"):
        Home(tmp_path / "home").prepare()


def test_storage_raises_at_the_first_use(tmp_path):
    """An unusable home is told to whoever first needs it, by every port."""
    (tmp_path / "file").write_text("x")
    storage = open_storage(tmp_path / "file", session="s")
    with pytest.raises(HomeUnusable):
        storage.store.get_now("k")
    with pytest.raises(HomeUnusable):
        storage.prepare()
    storage.close()


def test_the_living_and_the_dead(tmp_path):
    """A token is dead once its process ended, however; homes of one process are told apart."""
    mine, other = Home(tmp_path / "home"), Home(tmp_path / "home")
    code = "import sys; from nbllm.storage.home import Home; print(Home(sys.argv[1]).token, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    token = process.stdout.readline().strip()
    everybody = [token, mine.token, other.token]
    assert mine.dead(everybody) == set()
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert mine.dead(everybody) == {token}
    assert mine.dead(everybody) == {token}  # its file is gone by now
    gone = other.token
    other.close()
    assert mine.dead([gone, mine.token]) == {gone}
    mine.close()
    assert list((tmp_path / "home" / "run").iterdir()) == []


def test_lock_files_of_the_dead_are_swept(tmp_path):
    """A kill leaves its lock file; the next process removes it and leaves the living alone."""
    living = Home(tmp_path / "home")
    token = living.token
    (tmp_path / "home" / "run" / "1-dead.lock").touch()
    next_one = Home(tmp_path / "home")
    assert {path.stem for path in (tmp_path / "home" / "run").iterdir()} >= {token}
    names = {token, next_one.token}
    assert {path.stem for path in (tmp_path / "home" / "run").iterdir()} == names
    living.close()
    next_one.close()


MOUNTS = """\
21 26 0:20 / /proc rw - proc proc rw
26 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 26 0:44 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2
41 40 8:2 / /home/ann/scratch rw - xfs /dev/sdb1 rw
42 26 0:45 / /mnt/with\\040space rw - fuse.sshfs me@there: rw
43 26 0:46 / /mnt/disk rw - fuse.ntfs-3g /dev/sdc1 rw
"""


@pytest.mark.skipif(os.name != "posix", reason="paths of Linux")
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/x", None),
        ("/home/ann/.local/share/nbllm", "nfs4"),
        ("/homework", None),
        ("/home/ann/scratch/nbllm", None),
        ("/mnt/with space/a", "fuse.sshfs"),
        ("/mnt/disk/a", None),
    ],
)
def test_network_file_systems(path, kind):
    """The longest mount point that holds the path decides."""
    assert network_file_system(path, MOUNTS) == kind


def test_on_a_network_each_machine_has_its_own_files_without_wal(tmp_path, monkeypatch):
    """One warning, a folder of this machine's own, no WAL, and every port works."""
    import asyncio
    from decimal import Decimal

    from nbllm.core.ports import Filter, Scope
    from tests.storage.rows import call

    monkeypatch.setattr(home_module, "network_file_system", lambda _: "nfs4")
    told: list[str] = []
    storage = open_storage(tmp_path / "home", session="s", on_trouble=told.append)
    written = storage.ledger.add_call(call())
    if written is not None:
        written.result(30)
    second = storage.ledger.add_call(call())
    assert second is not None  # over a network no commit is made on the caller's time
    second.result(30)
    assert len(storage.ledger.calls(Filter(), limit=5)) == 2
    asyncio.run(storage.budgets.settle("r", [Scope("s")], Decimal(1)))
    assert storage.budgets._db.flush()
    assert storage.store.get_now("k") is None
    data = storage.home.data
    assert data.parent == tmp_path / "home" / "machines"
    assert {path.name for path in data.iterdir()} == {"cache", "ledger.db", "run", "state.db"}
    assert len(told) == 1
    assert "nfs4" in told[0]
    storage.close()
