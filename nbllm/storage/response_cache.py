"""The response cache: complete answers by key, in a diskcache table on this machine.

A hit is one SELECT on a connection of this class's own; diskcache's own get would check its policy, and its policy for least
recent use writes on every read. Access times wait in memory and are written with the next put, now and then, and on close.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nbllm.core.ports import CacheStats, Stored
from nbllm.errors import HomeUnusable, StorageError
from nbllm.storage.connections import PAGE_BYTES
from nbllm.storage.entries import Damaged, decode, encode, label, model_line, tag_line
from nbllm.storage.faults import OnTrouble
from nbllm.storage.home import Home, own_directory
from nbllm.storage.opening import give_back
from nbllm.storage.sqlite import Database

if TYPE_CHECKING:
    from nbllm.storage.inline_cache import InlineCache

DEFAULT_SIZE_BYTES = 1 << 30
PUT_WAIT_S = 2.0
_FLUSH_AT = 256
_SELECT = "SELECT value, mode, filename FROM Cache WHERE key = ? AND raw = 1"
_ASIDE = "damaged:"
"""What the keys of entries begin with that are kept only to be looked at: no request's key does, and they go by age like others."""


class DiskResponseStore:
    """Complete answers in `cache/cache.db`. Safe for threads, forks and several processes; nothing is opened before the first use.

    size_limit_bytes: the least recently used go first. max_age_s: older entries are misses and are not handed out, whatever
    their own expiry; None for no such limit. on_trouble: told once of each kind of trouble.
    """

    def __init__(
        self,
        home: Home,
        *,
        size_limit_bytes: int = DEFAULT_SIZE_BYTES,
        max_age_s: float | None = None,
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self._home = home
        self._size_limit_bytes = size_limit_bytes
        self._max_age_s = max_age_s
        self._db = Database(
            home, "cache/cache.db", migrations=(), opened=self._opened, prepared=self._prepare, on_trouble=on_trouble
        )
        self._cache: InlineCache | None = None
        self._accessed: dict[str, float] = {}

    def _prepare(self) -> None:
        own_directory(self._home.prepare() / "cache")

    def _opened(self, con: sqlite3.Connection) -> None:
        from nbllm.storage.inline_cache import InlineCache

        directory = str(self._home.data / "cache")
        new = con.execute("SELECT count(*) FROM sqlite_master WHERE name = 'Settings'").fetchone() == (0,)
        if new:  # diskcache's forty statements as one commit
            con.execute("BEGIN IMMEDIATE")
        self._cache = InlineCache(con, directory, size_limit=self._size_limit_bytes, wal=not self._home.network)
        if new:
            con.execute("COMMIT")

    @property
    def waits(self) -> bool:
        """False: get_now answers."""
        return False

    @property
    def degraded(self) -> str | None:
        """What is wrong with the file just now, None for nothing."""
        return self._db.degraded

    # ------------------------------------------------------------------------------------------------ one entry

    def get_now(self, key: str) -> Stored | None:
        """Return the entry, None for a miss. Damage, a locked or an unreadable file are misses. Raises HomeUnusable."""
        try:
            row = self._db.first_row(_SELECT, (key,))
        except (StorageError, UnicodeError):
            return None
        if row is None:
            return None
        value, mode, filename = row
        try:
            entry = decode(key, value if mode == 1 and filename is None else None)
        except Damaged:
            self._set_entry_aside(key)
            return None
        now = time.time()
        if self._max_age_s is not None and entry.created_at < now - self._max_age_s:
            return None
        self._accessed[key] = now
        if len(self._accessed) >= _FLUSH_AT:
            self._flush_accessed()
        return entry

    async def get(self, key: str) -> Stored | None:
        """Return the same as get_now."""
        return self.get_now(key)

    async def missing(self, keys: Sequence[str]) -> Sequence[str]:
        """Return which of these keys hold no entry. Raises StorageError."""
        sql = f"SELECT key FROM Cache WHERE raw = 1 AND key IN ({','.join('?' * len(keys))})"  # noqa: S608 - bound
        found = {key for (key,) in self._db.read(lambda con: con.execute(sql, tuple(keys)).fetchall())}
        return [key for key in keys if key not in found]

    async def put(self, entry: Stored) -> None:
        """Keep an entry. Raises StorageError when it cannot."""
        try:
            value, _ = encode(entry), entry.key.encode("utf-8")
        except (TypeError, ValueError) as exc:
            raise StorageError(f"The answer cannot be cached: {exc}.") from exc
        accessed, self._accessed = self._accessed, {}
        tag = label(entry.model, entry.tags)

        def run(con: sqlite3.Connection) -> None:
            cache = self._of(con)
            if accessed:
                cache.touch_many(accessed)
            cache.keep(entry.key, value, created_at=entry.created_at, tag=tag)

        await self._db.run(run, wait_s=PUT_WAIT_S, pages=1 + len(value) // PAGE_BYTES)

    def _of(self, con: sqlite3.Connection) -> InlineCache:
        """Return diskcache's view of the connection that the database is using."""
        cache = self._cache
        if cache is None or cache._given is not con:  # noqa: SLF001 - both halves of one thing
            raise StorageError("The cache was opened anew meanwhile.")
        return cache

    def _flush_accessed(self) -> None:
        accessed, self._accessed = self._accessed, {}
        if accessed:
            self._db.defer(lambda con: self._of(con).touch_many(accessed))

    def _set_entry_aside(self, key: str) -> None:
        aside = "UPDATE OR REPLACE Cache SET key = ? || key WHERE key = ? AND raw = 1"
        self._db.defer(lambda con: _nothing(con.execute(aside, (_ASIDE, key))))

    # ------------------------------------------------------------------------------------------------ all of them

    def entries(self) -> Iterator[Stored]:
        """Yield all readable entries, newest first."""
        self._db.flush()
        rowids = self._db.read(lambda con: con.execute("SELECT rowid FROM Cache WHERE raw = 1 ORDER BY store_time DESC").fetchall())
        for start in range(0, len(rowids), 100):
            yield from self._chunk([rowid for (rowid,) in rowids[start : start + 100]])

    def _chunk(self, rowids: list[int]) -> Iterator[Stored]:
        marks = ",".join("?" * len(rowids))
        sql = f"SELECT key, value, mode, filename FROM Cache WHERE rowid IN ({marks}) ORDER BY store_time DESC"  # noqa: S608 - bound
        for key, value, mode, filename in self._db.read(lambda con: con.execute(sql, rowids).fetchall()):
            if mode == 1 and filename is None and isinstance(key, str):
                try:
                    yield decode(key, value)
                except Damaged:
                    continue

    def purge(
        self,
        *,
        key_prefix: str | None = None,
        keys: Collection[str] | None = None,
        model: str | None = None,
        tag: str | None = None,
        older_than_s: float | None = None,
    ) -> int:
        """Delete the entries that match all that is given (nothing given: all, what was set aside included) and count them."""
        clauses: list[str] = []
        values: list[Any] = []
        if key_prefix is not None:
            clauses.append("substr(key, 1, ?) = ?")
            values += [len(key_prefix), key_prefix]
        if keys is not None:
            clauses.append("key IN (SELECT value FROM json_each(?))")
            values.append(json.dumps([*keys]))
        for line in ([] if model is None else [model_line(model)]) + ([] if tag is None else [tag_line(tag)]):
            clauses.append("instr(tag, ?) > 0")
            values.append(f"\n{line}\n")
        if older_than_s is not None:
            clauses.append("store_time < ?")
            values.append(time.time() - older_than_s)
        sql = f"DELETE FROM Cache WHERE {' AND '.join(clauses) or '1'}"  # noqa: S608 - values are bound
        self._accessed.clear()

        def run(con: sqlite3.Connection) -> int:
            count = con.execute(sql, values).rowcount
            give_back(con)
            return count

        return self._db.run_and_wait(run)

    def stats(self) -> CacheStats:
        """Return counts and sizes; size_bytes is what the file uses."""
        self._db.flush()
        aside = f"SELECT count(*) FROM Cache WHERE key >= '{_ASIDE}' AND key < 'damaged;'"  # noqa: S608 - our own

        def run(con: sqlite3.Connection) -> tuple[int, int, int]:
            (rows,), (damaged,) = con.execute("SELECT count(*) FROM Cache").fetchone(), con.execute(aside).fetchone()
            (pages,) = con.execute("PRAGMA page_count").fetchone()
            (free,) = con.execute("PRAGMA freelist_count").fetchone()
            (page_bytes,) = con.execute("PRAGMA page_size").fetchone()
            return rows - damaged, damaged, (pages - free) * page_bytes

        count, damaged, size_bytes = self._db.read(run)
        return CacheStats(
            entries=count,
            size_bytes=size_bytes,
            size_limit_bytes=self._size_limit_bytes,
            damaged=damaged,
            directory=str(self._home.data / "cache"),
        )

    def close(self) -> None:
        """Write access times and let go of the file."""
        try:
            self._flush_accessed()
        except HomeUnusable:  # then there was nothing to write either
            self._accessed.clear()
        self._db.close()


def _nothing(_: object) -> None:
    return None
