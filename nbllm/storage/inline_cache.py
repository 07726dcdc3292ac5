"""diskcache without its pickle and without its side files. The only file that imports diskcache; itself imported late.

diskcache 5.6.3 unpickles what it finds in its table (CVE-2025-69872), and keeps values over 32 KB in files of their own, which a
kill can orphan. Here every value is in its row, and a pickled row or key is refused on read.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

import diskcache

from nbllm.storage.entries import Damaged

_SIMPLE = (str, bytes, int, float)
_RAW_MODE = 1
_NO_VALUE = diskcache.core.ENOVAL
_CULL_ROWS = 10
_CULLS = 3
_ROW_BYTES = 512
"""What a row takes besides its value, roughly: key, tag, times, its place in the indexes."""
_MEASURE_SHARE = 100
_FREE = "SELECT (SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM pragma_freelist_count)"
_PUT = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value) "
    "VALUES (?, ?, ?, NULL, ?, 0, ?, ?, ?, ?, ?) ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time, "
    "access_time = excluded.access_time, tag = excluded.tag, size = excluded.size, mode = excluded.mode, "
    "filename = excluded.filename, value = excluded.value"
)


class PlainDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Keeps str, bytes, int and float, in the row; refuses all else on the way in and on the way out."""

    def put(self, key: Any) -> tuple[Any, bool]:
        """Return the key as it is stored. Raises TypeError for one that would have to be pickled."""
        if type(key) not in _SIMPLE:
            raise TypeError(f"A cache key must be str, bytes, int or float, not {type(key).__name__}.")
        return super().put(key)  # type: ignore[no-any-return]  # diskcache has no types

    def get(self, key: Any, raw: bool) -> Any:
        """Return the key of a row. Raises Damaged for a pickled one."""
        if not raw:
            raise Damaged
        return super().get(key, raw)

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, Any]:  # noqa: ARG002 - diskcache's
        """Return size, mode, no file name, and the value. Raises TypeError for one that would have to be pickled."""
        if read or type(value) not in _SIMPLE:
            raise TypeError(f"A cache value must be str, bytes, int or float, not {type(value).__name__}.")
        return 0, _RAW_MODE, None, value

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """Return the value of a row. Raises Damaged for a pickled one and for one that names a file."""
        if mode != _RAW_MODE or filename is not None or read:
            raise Damaged
        return super().fetch(mode, filename, value, read)


class InlineCache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """A diskcache on a connection that is given to it: its owner keeps threads apart and commits.

    Entries go by least recent use once the file is over its limit. Reads do not write: access times come with `touch_many`.
    """

    def __init__(self, con: sqlite3.Connection, directory: str, *, size_limit: int, wal: bool) -> None:
        self._given = con
        self._unmeasured_bytes = size_limit
        super().__init__(
            directory,
            timeout=0,
            disk=PlainDisk,
            size_limit=size_limit,
            eviction_policy="least-recently-used",
            cull_limit=_CULL_ROWS,
            # For diskcache elsewhere: here the owner has set them. A file that shrinks below a mapping kills whoever reads there.
            sqlite_mmap_size=0,
            sqlite_auto_vacuum=2,
            sqlite_journal_mode="wal" if wal else "delete",
        )

    @property
    def _con(self) -> sqlite3.Connection:
        return self._given

    @property
    def _sql_retry(self) -> Any:
        # diskcache would wait up to 60 s for a lock, sleeping; whoever owns the connection queues instead.
        return self._execute

    def _execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Execute a statement; a setting that is in its row already is not written again, so that opening takes no lock."""
        if sql.startswith(("INSERT OR REPLACE INTO Settings", "INSERT OR IGNORE INTO Settings")):
            key, value = parameters
            found = self._given.execute("SELECT value FROM Settings WHERE key = ?", (key,)).fetchone()
            if found is not None and ("IGNORE" in sql or found[0] == value):
                return found
        return self._given.execute(sql, parameters)

    def reset(self, key: str, value: Any = _NO_VALUE, update: bool = True) -> Any:  # noqa: ARG002 - diskcache's
        """Set or read an attribute. Pragmas are the owner's, and __init__ has written the row."""
        if value is _NO_VALUE:
            return super().reset(key)
        setattr(self, key, value)
        return value

    def close(self) -> None:
        """Do nothing: the connection is its owner's."""

    def volume(self) -> int:
        """Return the bytes in use: inside a transaction freed pages still belong to the file."""
        (pages,) = self._given.execute(_FREE).fetchone()
        return int(pages) * int(self._page_size)

    def keep(self, key: str, value: bytes, *, created_at: float, tag: str) -> None:
        """Insert or replace one row and make room for it, inside the owner's transaction."""
        db_key, raw = self._disk.put(key)
        size, mode, filename, db_value = self._disk.store(value, read=False, key=key)
        self._given.execute(_PUT, (db_key, raw, created_at, time.time(), tag, size, mode, filename, db_value))
        # Measuring costs as much as the row itself: it is done once a hundredth of the limit has been written.
        self._unmeasured_bytes += len(value) + _ROW_BYTES
        if self._unmeasured_bytes * _MEASURE_SHARE < self.size_limit:
            return
        # A file that is over its limit, because the limit was lowered, say, shrinks with each further put: none of them takes long.
        for _ in range(_CULLS):
            if self.volume() <= self.size_limit or len(self) <= 1:
                self._unmeasured_bytes = 0
                return
            self._cull(0.0, self._given.execute, _no_file)

    def touch_many(self, accessed: Mapping[str, float]) -> None:
        """Write access times, inside the owner's transaction."""
        update = "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1"
        self._given.executemany(update, [(at, key) for key, at in list(accessed.items())])


def _no_file(_: object) -> None:
    return None
