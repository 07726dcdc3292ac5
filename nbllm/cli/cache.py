"""`nbllm cache`: the answer cache from outside a notebook."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from nbllm.cli.paper import Paper, age, plural, size
from nbllm.core.ports import Filter, Stored
from nbllm.errors import InvalidRequest
from nbllm.money import format_usd
from nbllm.settings import Settings
from nbllm.storage.home import Home
from nbllm.storage.late_vectors import VECTORS
from nbllm.storage.ledger import SqliteLedger
from nbllm.storage.response_cache import DiskResponseStore

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def cache(given: argparse.Namespace) -> int:
    """Run one action and return the exit code."""
    settings = Settings.load()
    paper = Paper()
    if not settings.home.exists():
        paper.line(f"  Nothing is stored yet: {settings.home} is made by the first call.")
        return 0
    home = Home(settings.home)
    try:
        with opened(home, settings) as store:
            if given.action == "list":
                return _list(paper, store, given.limit)
            if given.action == "purge":
                return _purge(paper, store, home, given)
            return _stats(paper, store, home)
    finally:
        home.close()


def _sweep(home: Home, store: DiskResponseStore) -> None:
    """Take the questions out of the index whose answers are gone."""
    if not (home.data / VECTORS).exists():
        return
    import asyncio

    from nbllm.storage.sweeping import sweep
    from nbllm.storage.vectors import SqliteVectors

    index = SqliteVectors(home)
    try:
        asyncio.run(sweep(index, store))
    finally:
        index.close()


@contextmanager
def opened(home: Home, settings: Settings) -> Iterator[DiskResponseStore]:
    """Open the cache for a with block."""
    store = DiskResponseStore(home, size_limit_bytes=int(settings.cache_size_mb * 1_000_000))
    try:
        yield store
    finally:
        store.close()


def _stats(paper: Paper, store: DiskResponseStore, home: Home) -> int:
    stats = store.stats()
    share = stats.size_bytes / stats.size_limit_bytes
    paper.line(f"  {plural(stats.entries, 'answer')} in {size(stats.size_bytes)} of {size(stats.size_limit_bytes)} ({share:.0%})")
    paper.line(f"  {stats.directory}")
    if stats.damaged:
        paper.line(f"  {plural(stats.damaged, 'entry', 'entries')} set aside because the checksum did not hold")
    ledger = SqliteLedger(home, session="nbllm cache")
    try:
        total = next(iter(ledger.usage("total", Filter())), None)
    finally:
        ledger.close()
    if total is not None and total.calls:
        paper.line(f"  {plural(total.hits, 'hit')} in {plural(total.calls, 'call')}, {total.hits / total.calls:.0%}; they saved "
                   f"{format_usd(total.saved_usd)} and {age(total.saved_s)}")  # fmt: skip
    return 0


def _list(paper: Paper, store: DiskResponseStore, limit: int) -> int:
    if limit < 1:
        raise InvalidRequest(f"--limit must be at least 1, not {limit}.")
    now = time.time()
    rows = [_row(entry, now) for entry in islice(store.entries(), limit)]
    if not rows:
        paper.line("  The cache is empty.")
        return 0
    paper.table(("key", "#age", "#fresh for", "#size", "#saves", "model, tags"), rows)
    return 0


def _row(entry: Stored, now: float) -> tuple[str, ...]:
    fresh = "always" if entry.expires_at is None else "stale" if entry.expires_at <= now else age(entry.expires_at - now)
    what = " ".join((entry.model, *(f"#{tag}" for tag in entry.tags)))
    return (entry.key[:12], age(now - entry.created_at), fresh, size(entry.size_bytes), format_usd(entry.cost_usd), what)


def _purge(paper: Paper, store: DiskResponseStore, home: Home, given: argparse.Namespace) -> int:
    chosen = [given.key, given.model, given.tag, given.older_than]
    if given.all == any(value is not None for value in chosen):
        raise InvalidRequest(
            "Say which entries are to be deleted." if not given.all else "--all deletes every entry and takes no other choice.",
            hint="nbllm cache purge --key KEY | --model MODEL | --tag TAG | --older-than 7d | --all",
        )
    older_than_s = None if given.older_than is None else duration_s(given.older_than)
    count = store.purge(key_prefix=given.key, model=given.model, tag=given.tag, older_than_s=older_than_s)
    if count:
        _sweep(home, store)
    paper.line(f"  {plural(count, 'entry', 'entries')} deleted.")
    return 0


def duration_s(text: str) -> float:
    """Return seconds for 90, 90s, 10m, 12h, 7d or 2w; raises InvalidRequest."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip().lower())
    if match is None:
        raise InvalidRequest(f"{text!r} is no length of time.", hint="Write a number with s, m, h, d or w: 30s, 12h, 7d.")
    return float(match[1]) * _UNITS_S[match[2]]
