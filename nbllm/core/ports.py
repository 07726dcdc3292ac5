"""What lasts or is shared, and the outside world, as Protocols. tests/conformance holds every implementation to them.

Nothing here may stall the loop that calls it: an implementation that has to wait says so by being awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from nbllm.core.messages import Attempt, CallRow, Content, Delta, Ending, Rung, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

S = TypeVar("S")
T = TypeVar("T")

Written = Future[None] | None
"""None: committed. A future: the database was busy, a writer thread will commit it; wait for it where it must be certain.

The future may hold a StorageError (disk full, locked for long): the user was told once, and the call goes on without the row.
"""


# ---------------------------------------------------------------------------------------------------- stored answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A complete answer in the cache. `answer` is JSON-able: text, reasoning, message, usage, finish_reason, logprobs, vectors.

    created_at and expires_at are Unix times in seconds; expires_at None: never. An expired entry is still handed out: the
    stage decides, because a stale entry may serve the ladder. cost_usd and latency_s are what the answer took to make.
    """

    key: str
    model: str
    created_at: float
    expires_at: float | None
    answer: Mapping[str, Any]
    cost_usd: Decimal | None
    latency_s: float | None
    ttft_s: float | None = None
    tags: tuple[str, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """entries and bytes now; damaged: entries set aside because their checksum did not hold."""

    entries: int
    size_bytes: int
    size_limit_bytes: int
    damaged: int
    directory: str


class ResponseStore(Protocol):
    """Complete answers by key, on this machine or shared. Never raises for damage: a damaged entry is a miss, set aside."""

    def get_now(self, key: str) -> Stored | None:
        """Return the entry without waiting; None for a miss, and for a store that would have to wait (`waits` is True)."""

    @property
    def waits(self) -> bool:
        """Whether get_now cannot answer and `get` must be awaited."""

    async def get(self, key: str) -> Stored | None:
        """Return the entry or None."""

    async def put(self, entry: Stored) -> None:
        """Keep an entry, replacing one with its key. Raises StorageError when it cannot; the answer is delivered all the same."""

    def entries(self) -> Iterator[Stored]:
        """Yield all readable entries, newest first."""

    def purge(
        self, *, key_prefix: str | None = None, model: str | None = None, tag: str | None = None, older_than_s: float | None = None
    ) -> int:
        """Delete the entries that match all that is given (nothing given: all) and return how many there were."""

    def stats(self) -> CacheStats:
        """Return counts and sizes."""

    def close(self) -> None:
        """Flush access times and let go of the files."""


# ---------------------------------------------------------------------------------------------------- one run for many


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one key for all processes. `fence` grows with each holder: a late one is recognised."""

    key: str
    fence: int
    expires_at: float


class Flights(Protocol):
    """Who runs a key, across processes."""

    async def lead(self, key: str, *, lease_s: float) -> Lease | None:
        """Take the lease, or return None while another live process holds it."""

    async def renew(self, lease: Lease, *, lease_s: float) -> Lease | None:
        """Prolong it; None when it was lost."""

    async def holds(self, lease: Lease) -> bool:
        """Whether the lease is still this one (asked before storing: a late leader stores nothing)."""

    async def release(self, lease: Lease) -> None:
        """Give it back. A lost lease is no error."""


# ---------------------------------------------------------------------------------------------------- the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls. All None: all of them. since and until are Unix times in seconds."""

    session: str | None = None
    model: str | None = None
    """The rung that answered; a trailing * matches the rest."""
    feature: str | None = None
    user: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums over a group. cost_usd sums what is known; unknown_cost_calls says how many calls are not in it.

    hits, failed: as in Series; a stale or static answer is no hit, and its call is a failed one.
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

    def add_call(self, row: CallRow) -> Written:
        """Insert a call that is closed already (a hit: one commit instead of two)."""

    def open_attempt(self, attempt: Attempt) -> Written:
        """Insert an open attempt. Its future, if any, must be waited for before the request is sent."""

    def close_attempt(self, attempt: Attempt) -> Written:
        """Close it: status, sent, times, tokens, cost."""

    def usage(self, by: str, where: Filter) -> Sequence[UsageRow]:
        """Sums by "model" | "feature" | "user" | "day" | "session" | "source" | "status" | "total"; InvalidRequest for another."""

    def series(self, where: Filter) -> Series:
        """Calls as columns."""

    def calls(self, where: Filter, *, limit: int) -> Sequence[CallRow]:
        """The newest calls, newest first."""

    def attempts(self, call_id: str) -> Sequence[Attempt]:
        """A call's attempts in order."""

    def spent_usd(self, where: Filter) -> Decimal:
        """What the calls cost, worst cases of unknown ones included."""

    def close(self) -> None:
        """Commit what waits, let go of the files and of this process's run lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The texts of one call, redacted: what parity, examples and the call list need."""

    call_id: str
    started_at: float
    model: str
    prompt: Mapping[str, Any]
    answer: Mapping[str, Any]
    flow: Mapping[str, Any] | None = None


class Recordings(Protocol):
    """Texts of calls, apart from the ledger, bounded in age and size."""

    def keep(self, recording: Recording) -> Written:
        """Keep one (handed to the writer thread; losing one is no error)."""

    def get(self, call_id: str) -> Recording | None:
        """Return one or None."""

    def newest(self, limit: int) -> Sequence[Recording]:
        """Return the newest."""

    def forget(self, *, call_id: str | None = None) -> int:
        """Delete one or all, and return how many there were."""

    def close(self) -> None:
        """Commit what waits and let go of the files."""


# ---------------------------------------------------------------------------------------------------- money


@dataclass(frozen=True, slots=True)
class Scope:
    """One budget that an attempt pays into: a name such as "session:<id>", "feature:summaries", "day:2026-11-21"."""

    name: str
    hard_usd: Decimal | None = None
    soft_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """spent + reserved against a scope, at one moment."""

    spent_usd: Decimal
    reserved_usd: Decimal


class BudgetStore(Protocol):
    """Money spent and reserved per scope, exact to the picodollar, shared by all processes on one home."""

    async def reserve(self, reservation_id: str, scopes: Sequence[Scope], amount_usd: Decimal) -> Mapping[str, Balance]:
        """Reserve in all scopes or in none, in one transaction; return the balances after it.

        Raises BudgetExceeded for the first scope where spent + reserved + amount > hard_usd (or spent >= hard_usd), and
        BudgetUnavailable when it cannot be checked.
        """

    async def settle(self, reservation_id: str, scopes: Sequence[Scope], cost_usd: Decimal) -> Mapping[str, Balance]:
        """Book the true cost in all scopes and drop the reservation; without one (nothing was reserved) only book.

        An id is booked once: a second settle changes nothing. It is booked even if its caller stops waiting for it. Returns the
        balances after it; of scopes without any limit it may leave them out.
        """

    async def balance(self, names: Sequence[str]) -> Mapping[str, Balance]:
        """Return the balances; a scope never seen is zero."""

    def close(self) -> None:
        """Let go of the files."""


# ---------------------------------------------------------------------------------------------------- shared small states


class SharedState(Protocol[S]):
    """Small states by key (a breaker, a token bucket), changed atomically. In this process, or shared by a backend."""

    async def apply(self, key: str, change: Callable[[S | None], tuple[S, T]]) -> T:
        """Replace the state by what `change` returns for it (None: none yet) and return its result. `change` is pure."""

    async def read(self, key: str) -> S | None:
        """Return the state, or None."""


# ---------------------------------------------------------------------------------------------------- the outside world


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What the provider's headers say of its limits. None: not said. reset is seconds from now."""

    requests_limit: int | None = None
    requests_left: int | None = None
    requests_reset_s: float | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One request as it goes out. `streamed`: ask for a stream. `attempt_id` seeds nothing and is only for logs."""

    rung: Rung
    content: Content
    streamed: bool
    attempt_id: str = ""
    max_answer_bytes: int = 8 * 1024 * 1024
    max_line_bytes: int = 1024 * 1024
    deadline_s: float = 300.0
    """Seconds left; a hard outer limit for libraries that insist on a timeout of their own."""
    estimated_input: Usage = field(default_factory=Usage)


class Progress(Protocol):
    """How a provider tells the attempt what happens. Called on the loop; never raises, never blocks."""

    def sent(self) -> None:
        """The request is on the socket (headers written). From here on the server may have counted it."""

    def limits(self, limits: RateLimits) -> None:
        """The provider's headers told its limits."""

    def delta(self, delta: Delta) -> None:
        """A piece came. A whole answer is one piece."""

    def usage(self, usage: Usage) -> None:
        """Counts came before the end (kept if the stream is cut)."""


class Provider(Protocol):
    """One way to reach models. Owns its sockets; knows its wire format; maps its errors to nbllm.errors."""

    async def send(self, wire: Wire, progress: Progress) -> Ending:
        """Send one request and see it through: no retry, no timer but wire.deadline_s; cancellation closes the upstream at once.

        Raises AttemptFailed of the fitting kind, `raise ... from` the cause.
        """

    async def aclose(self) -> None:
        """Close idle sockets and wait until they are closed."""
