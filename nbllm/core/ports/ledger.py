"""The ledger, which holds numbers, and the recordings, which hold texts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from nbllm.core.records import Attempt, CallRow, Seen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Turn = asyncio.Future[Future[Any] | None]
"""Done in the event loop's next turn, where rows of several calls are committed at once; its result is what Written is then."""

Written = Future[None] | Turn | None
"""None: committed. A turn: will be in the loop's next turn. A future: the database was busy, a writer thread will commit it.

Wait for it where it must be certain. The future may hold a StorageError (disk full, locked for long): the user was told once, and
the call goes on without the row.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls. All None: all of them. since and until are Unix times in seconds."""

    session: str | None = None
    model: str | None = None
    """The rung that answered; a trailing * matches the rest."""
    feature: str | None = None
    user: str | None = None
    notebook: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums over a group. cost_usd sums what is known; unknown_cost_calls says how many calls are not in it.

    attempts: requests, that is those attempts that were sent, or may have been. hits, failed: as in Series; a stale or static
    answer is no hit, and its call is a failed one.
    """

    group: str
    calls: int
    failed: int
    hits: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    estimated_usd: Decimal
    """The part of cost_usd that is estimated."""
    unknown_cost_calls: int
    saved_usd: Decimal
    saved_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Calls as columns, one entry a call in order of started_at, for plots and percentiles (NaN where unknown).

    started_at: Unix seconds; latency_s, ttft_s, saved_s; cost_usd and saved_usd as float; tokens; hit and failed as booleans
    (failed: no model and no fresh entry answered, what was cancelled and what a stale or static answer rescued included);
    model: index into `models`. Calls under way are left out.
    """

    started_at: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    saved_usd: NDArray[np.float64]
    saved_s: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    hit: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    model: NDArray[np.int32]
    models: tuple[str, ...]


class Ledger(Protocol):
    """Every call and every attempt, opened before it happens and closed once. Holds no text. Never evicts."""

    def open_call(self, row: CallRow) -> Written:
        """Insert an open call."""

    def close_call(self, row: CallRow) -> Written:
        """Close a call that open_call opened: status, source, rung and numbers of `row`."""

    def add_call(self, row: CallRow, *, together: bool = False) -> Written:
        """Insert a call that is closed already (a hit: one commit instead of two)."""

    def open_attempt(self, attempt: Attempt) -> Written:
        """Insert an open attempt. Its future, if any, must be waited for before the request is sent."""

    def close_attempt(self, attempt: Attempt) -> Written:
        """Close it: status, sent, times, tokens, cost."""

    def usage(self, by: str, where: Filter, *, ended: bool = False) -> Sequence[UsageRow]:
        """Sums by "model" | "feature" | "user" | "day" | "session" | "source" | "status" | "total"; InvalidRequest for another.

        ended: calls that are under way are left out.
        """

    def usages(self, groupings: Sequence[str], where: Filter, *, ended: bool = False) -> Sequence[Sequence[UsageRow]]:
        """The sums of each of several groupings of the same calls, which are read once."""

    def series(self, where: Filter, *, costs: bool = True) -> Series:
        """Calls as columns. Without costs, which are in the attempts, less is read, and cost_usd is NaN throughout: not known."""

    def calls(self, where: Filter, *, limit: int) -> Sequence[CallRow]:
        """The newest calls, newest first."""

    def call(self, call_id: str) -> CallRow | None:
        """Return a call's row; None for one that is not known. Reads the whole table: for a person's question."""

    def key_hashes(self, where: Filter) -> frozenset[str]:
        """The cache keys of the calls that fit, each once."""

    def attempts(self, call_id: str) -> Sequence[Attempt]:
        """A call's attempts in order."""

    def newest_answers(self, limit: int) -> Sequence[Seen]:
        """The newest attempts at answers that were answered, oldest first; those of helpers are left out."""

    def attempts_of(self, where: Filter, *, limit: int) -> Sequence[Attempt]:
        """The attempts of the newest calls that fit, those of one call in order."""

    def spent_usd(self, where: Filter) -> Decimal:
        """What the calls cost, worst cases of unknown ones included."""

    def close(self) -> None:
        """Commit what waits, let go of the files and of this process's run lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The texts of one call, redacted: what parity, examples and the call list need.

    flow: the innermost flow that made it (flow_context.Flow.shown); `outer` in it has the flows around that one. When it is read,
    a flow whose run is over has `ended`: its status ("done" or "failed") and how many calls it had opened. session, notebook: where
    the call was made, as the ledger has it; None: not known.
    """

    call_id: str
    started_at: float
    model: str
    prompt: Mapping[str, Any]
    answer: Mapping[str, Any]
    flow: Mapping[str, Any] | None = None
    session: str | None = None
    notebook: str | None = None


class Recordings(Protocol):
    """Texts of calls, apart from the ledger, bounded in age and size."""

    def keep(self, recording: Recording) -> Written:
        """Keep one (handed to the writer thread; losing one is no error)."""

    def end_run(self, run: str, status: str, calls: int) -> Written:
        """Note that a run of a flow is over: "done" or "failed", and how many calls it had opened, those of inner flows too."""

    def get(self, call_id: str) -> Recording | None:
        """Return one or None."""

    def newest(self, limit: int) -> Sequence[Recording]:
        """Return the newest."""

    def forget(self, *, call_id: str | None = None) -> int:
        """Delete one or all, and return how many there were."""

    def close(self) -> None:
        """Commit what waits and let go of the files."""
