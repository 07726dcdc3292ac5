"""Storage: all ports of one home, opened together and closed together."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.core.ports import BudgetStore, Flights, Ledger, Recordings, ResponseStore
from nbllm.core.ports.matches import Matches
from nbllm.core.ports.semantic import VectorIndex
from nbllm.errors import ConfigurationError
from nbllm.storage.budgets import SqliteBudgets
from nbllm.storage.faults import OnTrouble
from nbllm.storage.flights import SqliteFlights
from nbllm.storage.home import Home
from nbllm.storage.late_vectors import VECTORS, LateVectors
from nbllm.storage.ledger import SqliteLedger
from nbllm.storage.matches import SqliteMatches
from nbllm.storage.recordings import DEFAULT_BYTES, DEFAULT_DAYS, SqliteRecordings
from nbllm.storage.response_cache import DEFAULT_SIZE_BYTES, DiskResponseStore
from nbllm.storage.state import state_database

if TYPE_CHECKING:
    from nbllm.storage.redis_shared import Shared

_PATIENCE_S = 1.0
"""A call waits no longer for a large index to be loaded: it asks its model, and a later one finds the index loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What lasts or is shared, on this machine. Nothing is touched before the first use, which raises HomeUnusable if it must."""

    home: Home
    store: ResponseStore
    flights: Flights
    ledger: Ledger
    recordings: Recordings
    budgets: BudgetStore
    index: VectorIndex
    matches: Matches

    @property
    def indexed(self) -> bool:
        """Whether questions were ever indexed in this home."""
        return (self.home.data / VECTORS).exists()

    def prepare(self) -> str | None:
        """Make the home fit for use now; return a warning for the user, None for nothing. Raises HomeUnusable."""
        self.home.prepare()
        return self.home.warning

    def begin_anew(self) -> str | None:
        """Make a home that is gone anew; return what the user should know. None: another thread did. Raises HomeUnusable."""
        if not self.home.begin_anew():
            return None
        return (
            f"The folder {self.home.path} is gone: it was deleted or moved while nbllm was using it. It was made anew, empty: the "
            "cache, the ledger, the recordings, and what budgets had counted as spent begin at nothing."
        )

    def close(self) -> None:
        """Commit what waits, end the writer threads, let go of files and of this process's run lock."""
        with ExitStack() as closing:  # one that fails must not keep the others open; the home, whose lock they need, is last
            for part in (self.home, self.ledger, self.budgets, self.recordings, self.matches, self.index, self.store):
                closing.callback(part.close)


def open_storage(
    home_path: str | os.PathLike[str],
    *,
    session: str,
    cache_size_bytes: int = DEFAULT_SIZE_BYTES,
    cache_max_age_s: float | None = None,
    recordings_days: float = DEFAULT_DAYS,
    recordings_bytes: int = DEFAULT_BYTES,
    on_trouble: OnTrouble | None = None,
) -> Storage:
    """Return the storage of a home; nothing is opened yet.

    session: what this process is noted under in the ledger. cache_size_bytes, cache_max_age_s: the response cache's size, and an
    age at which entries are no longer handed out whatever their own expiry. recordings_days, recordings_bytes: what is kept of
    texts. on_trouble: told once of each kind of trouble, in words for the user; called from any thread.
    """
    home = Home(home_path, on_warning=on_trouble)
    state = state_database(home, on_trouble=on_trouble)
    return Storage(
        home=home,
        store=DiskResponseStore(home, size_limit_bytes=cache_size_bytes, max_age_s=cache_max_age_s, on_trouble=on_trouble),
        flights=SqliteFlights(home, state),
        ledger=SqliteLedger(home, session=session, on_trouble=on_trouble),
        recordings=SqliteRecordings(home, days=recordings_days, limit_bytes=recordings_bytes, on_trouble=on_trouble),
        budgets=SqliteBudgets(home, state),
        index=LateVectors(lambda: _vectors(home, on_trouble)),
        matches=SqliteMatches(home, on_trouble=on_trouble),
    )


def _vectors(home: Home, on_trouble: OnTrouble | None) -> VectorIndex:
    from nbllm.storage.vectors import SqliteVectors

    return SqliteVectors(home, patience_s=_PATIENCE_S, on_trouble=on_trouble)


def shared_at(url: str, **options: Any) -> Shared:
    """Return open_shared(url, **options). Raises ConfigurationError for a bad address, and for missing packages."""
    try:
        from nbllm.storage.redis_shared import open_shared
    except ImportError as exc:
        raise ConfigurationError(
            f"Sharing through Redis needs a package that is not installed ({exc.name}).",
            hint="pip install 'nbllm[service-redis]'",
        ) from None
    return open_shared(url, **options)
