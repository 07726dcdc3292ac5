"""How a database file is opened, brought up to date, and set aside when it is damaged."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from nbllm.errors import StorageError
from nbllm.storage.faults import Fault, storage_error

Migration = Callable[[sqlite3.Connection], None]

_OS_FAULTS = {errno.ENOSPC: Fault.FULL, errno.EROFS: Fault.READ_ONLY, errno.EACCES: Fault.READ_ONLY}


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that never waits: callers queue, retry or go on without.

    Threads are kept apart by the caller. isolation_level None: transactions are written out, never implied.
    """
    con = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64)
    con.execute("PRAGMA synchronous=NORMAL")
    con.execute("PRAGMA wal_autocheckpoint=0")
    con.execute("PRAGMA journal_size_limit=16777216")
    return con


def create_file(path: Path) -> bool:
    """Create an empty file with mode 0600 (SQLite gives the WAL the same) and return whether there was none; a link is refused.

    Only ever a new file: opening and closing an old one here would drop SQLite's own locks on it in this process (fcntl).
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_symlink():
            raise StorageError(f"{path} is a symbolic link; nbllm does not follow it.", hint="Move it away.") from None
        return False
    except OSError as exc:
        raise storage_error(path, _OS_FAULTS.get(exc.errno or 0, Fault.IO), exc) from exc
    return True


def migrate(con: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Do the migrations that the file lacks, all or none. Raises StorageError for a file of a newer version."""
    (version,) = con.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StorageError(
            f"{path} was written by a newer nbllm (its version is {version}; this one knows {len(migrations)}).",
            hint="Upgrade nbllm, or set NBLLM_HOME to another folder.",
        )
    if version == len(migrations):
        return
    con.execute("BEGIN IMMEDIATE")
    try:
        (version,) = con.execute("PRAGMA user_version").fetchone()  # another process may have been first
        for number, migration in enumerate(migrations[version:], version + 1):
            migration(con)
            con.execute(f"PRAGMA user_version={number}")
        con.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            con.execute("ROLLBACK")
        raise


def give_back(con: sqlite3.Connection) -> None:
    """Give freed pages back to the disk, inside a transaction.

    One page at a time: the pragma yields rows without columns, so Python's sqlite3 takes it for done after the first.
    """
    (free,) = con.execute("PRAGMA freelist_count").fetchone()
    for _ in range(free):
        con.execute("PRAGMA incremental_vacuum")


def set_aside(path: Path, inode: int) -> str | None:
    """Rename a damaged file and what belongs to it; return its new name.

    inode: that of the file in which the damage was seen, 0 when it could not even be opened. None: another process has begun a
    new file already, or the system refuses.
    """
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
    try:
        if inode and path.stat().st_ino != inode:
            return None
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).replace(path.with_name(name + suffix))
    except OSError:
        return None
    return name
