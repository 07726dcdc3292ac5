"""The connections of one process to one database file: one that writes, one that reads. Whoever calls holds the right lock."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from nbllm.storage.home import Home
from nbllm.storage.opening import Migration, connect, create_file, migrate, set_aside

LOG_BYTES = 8 * 1024 * 1024
"""A log larger than this makes writers pause (they queue) until all of it is moved: only then does it start over."""

_TRIES = 3

PAGE_BYTES = 4096
"""A commit writes whole pages: with 2048 a hit takes 1 us less, and a sum over a million calls a seventh more (1.06 s for 0.93)."""

_of_the_parent: list[sqlite3.Connection] = []


class Connections:
    """Opened on first use. prepared: called before the file is opened. opened: called with each new writing connection.

    log_bytes: see LOG_BYTES.
    """

    def __init__(
        self,
        home: Home,
        filename: str,
        migrations: Sequence[Migration],
        *,
        prepared: Callable[[], None] | None,
        opened: Callable[[sqlite3.Connection], None] | None,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        self._home = home
        self._log_bytes = log_bytes
        self._filename = filename
        self._migrations = migrations
        self._prepared = prepared
        self._opened = opened
        self._inode = 0
        self.writing: sqlite3.Connection | None = None
        self.reading: sqlite3.Connection | None = None

    @property
    def path(self) -> Path:
        """Where the file is. Raises HomeUnusable."""
        return self._home.prepare() / self._filename

    def open(self) -> sqlite3.Connection:
        """Open for writing: create the file (0600), choose WAL, migrate. Raises sqlite3.Error, StorageError, HomeUnusable."""
        path = self.path
        if self._prepared is not None:
            self._prepared()
        new = create_file(path)
        con = connect(path)
        try:
            if new:  # said before there is anything in the file, and in this order: auto_vacuum settles the pages' size
                con.execute(f"PRAGMA page_size={PAGE_BYTES}")
                con.execute("PRAGMA auto_vacuum=INCREMENTAL")  # deleting gives space back when it is asked for
            if self._home.network:
                con.execute("PRAGMA wal_autocheckpoint=1000")
            else:
                con.execute("PRAGMA journal_mode=WAL").fetchall()
            migrate(con, path, self._migrations)
            if self._opened is not None:
                self._opened(con)
        except BaseException:
            con.close()
            raise
        self._inode = path.stat().st_ino
        self.writing = con
        return con

    def open_reader(self) -> sqlite3.Connection:
        """Open for reading; the file is there already."""
        reader = connect(self.path)
        reader.execute("PRAGMA query_only=1")
        self.reading = reader
        return reader

    def let_go(self) -> None:
        """Drop both. The reader may be in use by another thread: it closes with its last reference."""
        con, self.writing, self.reading = self.writing, None, None
        if con is not None:
            with suppress(sqlite3.Error):
                con.close()

    def close(self) -> None:
        """Close both."""
        if self.reading is not None:
            with suppress(sqlite3.Error):
                self.reading.close()
        self.let_go()

    def set_aside(self) -> str | None:
        """Let go of a damaged file and rename it; return its new name, None when another process has begun a new one."""
        self.let_go()
        return set_aside(self.path, self._inode)

    def checkpoint(self, lock: threading.RLock, *, empty: bool) -> None:
        """Move the log into the file, on a connection of its own so that nobody waits for the disk; without `lock` held.

        empty: make the log empty, too, so that nothing deleted stays in it. What does not work now works next time, or when the
        last connection closes.
        """
        path = self.path
        try:
            if self._replaced(path):
                with lock:
                    self.let_go()
                return
            with closing(connect(path)) as con:
                checkpoint = f"PRAGMA wal_checkpoint({'TRUNCATE' if empty else 'PASSIVE'})"
                for _ in range(_TRIES):  # the less is left for the last time, the shorter writers wait
                    _, pages, _ = con.execute(checkpoint).fetchone()
                    # Counted in pages that are in use: the file keeps its size when the log starts over.
                    if pages * PAGE_BYTES <= self._log_bytes:
                        return
                with lock:
                    con.execute(checkpoint).fetchone()
        except (sqlite3.Error, OSError):
            return

    def _replaced(self, path: Path) -> bool:
        """Whether another process has set our file aside, or somebody deleted it."""
        try:
            return path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def leave_to_the_parent(self) -> None:
        """In a forked child: SQLite forbids to use, and to close, a connection across a fork, so they are kept for ever."""
        _of_the_parent.extend(con for con in (self.writing, self.reading) if con is not None)
        self.writing = self.reading = None
