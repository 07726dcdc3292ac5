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


class Additive:
    """A migration that need not be known: code without it reads and writes the file rightly, as with columns that may be NULL."""

    def __init__(self, migration: Migration) -> None:
        self._migration = migration

    def __call__(self, con: sqlite3.Connection) -> None:
        """Do it."""
        self._migration(con)


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
    """Do the migrations that the file lacks, all or none.

    Raises StorageError for a file of a newer version, unless the file says that this one may use it: all it lacks is additive.
    """
    (version,) = con.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        if _least_version(con, version) <= len(migrations):
            return
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
        _note_least_version(con, migrations)
        con.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            con.execute("ROLLBACK")
        raise


def _least_version(con: sqlite3.Connection, version: int) -> int:
    """Return from which version on code may use the file: its own, where it does not say."""
    if con.execute("SELECT 1 FROM sqlite_master WHERE name = 'least_version'").fetchone() is None:
        return version
    return int(con.execute("SELECT coalesce(max(version), ?) FROM least_version", (version,)).fetchone()[0])


def _note_least_version(con: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Say from which version on code may use the file, where that is not the last one."""
    least = max(number for number, migration in enumerate(migrations, 1) if not isinstance(migration, Additive))
    con.execute("DROP TABLE IF EXISTS least_version")
    if least < len(migrations):
        con.execute("CREATE TABLE least_version (version INTEGER NOT NULL)")
        con.execute("INSERT INTO least_version VALUES (?)", (least,))


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
