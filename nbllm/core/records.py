"""What came back and what was done: pieces of an answer, how it ended, and attempts and calls as rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr

from nbllm.core.why import NOTHING, Why
from nbllm.redaction import redact_name

Source = Literal["model", "cache", "semantic", "stale", "static"]
CacheMode = Literal["use", "refresh", "off"]
CostBasis = Literal["exact", "estimated", "unknown"]
HELPING = frozenset({"embed", "judge", "verify", "classify"})
"""What attempts are for that help to decide. Embeddings that a caller asked for are "embed" too."""


MOST_TOKENS = 2**53 - 1
"""What JSON's numbers, SQLite's and Prometheus' hold exactly; nothing has more tokens."""


class Usage(Struct, frozen=True, gc=False):
    """Token counts; None is unknown. `estimated`: counted by us from text, not by the provider. Adds up with +."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_input_tokens: int | None = None
    estimated: bool = False

    def plausible(self) -> Usage:
        """Return it with what cannot be a count (negative, broken, beyond MOST_TOKENS) as unknown: a provider may say anything."""

        def known(count: int | None) -> int | None:
            return count if isinstance(count, int) and 0 <= count <= MOST_TOKENS else None

        return Usage(
            known(self.input_tokens),
            known(self.output_tokens),
            known(self.reasoning_tokens),
            known(self.cached_input_tokens),
            self.estimated,
        )

    def __add__(self, other: Usage) -> Usage:
        """Return the sum; a count that only one side knows is that side's."""

        def plus(a: int | None, b: int | None) -> int | None:
            return a if b is None else b if a is None else a + b

        return Usage(
            plus(self.input_tokens, other.input_tokens),
            plus(self.output_tokens, other.output_tokens),
            plus(self.reasoning_tokens, other.reasoning_tokens),
            plus(self.cached_input_tokens, other.cached_input_tokens),
            self.estimated or other.estimated,
        )


class ToolCallFragment(Struct, frozen=True, gc=False):
    """A piece of one tool call; pieces with the same index belong together, `arguments` are concatenated."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Delta(Struct, frozen=True):
    """A piece of an answer, as it came."""

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCallFragment | None = None
    logprobs: tuple[Mapping[str, Any], ...] = ()
    """Per token, in OpenAI's shape ({"token": ..., "logprob": ..., "top_logprobs": [...]})."""


class Partial(Struct, frozen=True):
    """What was received so far. `tool_calls` in OpenAI's shape; their arguments may be cut."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] = ()

    def __bool__(self) -> bool:
        """Whether anything came at all."""
        return bool(self.text or self.reasoning or self.tool_calls)


class Ending(Struct, frozen=True, kw_only=True, gc=False):
    """How an answer ended, as the provider said it. The text itself went past as deltas.

    A server may put anything into the names that it gives, the key that it got too: finish_reason and model, which are shown and
    kept, are redacted.
    """

    finish_reason: str | None
    usage: Usage = Usage()
    model: str | None = None
    request_id: str | None = None
    vectors: tuple[tuple[float, ...], ...] | None = None
    """Embeddings, one per text, for an Embed request."""

    def __post_init__(self) -> None:
        """Redact the names."""
        for name in ("finish_reason", "model"):
            said = getattr(self, name)
            if said is not None and (shown := redact_name(said)) != said:
                force_setattr(self, name, shown)


class Origin(NamedTuple):
    """Where in a notebook a call was made: the cell's id, and a digest of the notebook's path. None: not known."""

    cell_id: str | None = None
    notebook: str | None = None


NOWHERE = Origin()


class AttemptStatus(Enum):
    """How an attempt, or a call, stands. UNKNOWN: its process died before it was closed."""

    OPEN = "open"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    __hash__ = object.__hash__  # members are singletons; Enum's own is a function in Python


class Attempt(Struct, frozen=True, kw_only=True, gc=False):
    """One request put on a socket, as a ledger row: numbers and names, no text.

    started_at is a Unix time in seconds; all `_s` are seconds measured with a monotonic clock. sent is None while unknown.
    """

    attempt_id: str
    call_id: str
    number: int
    rung: str
    endpoint: str
    model: str
    purpose: str = "answer"
    """What it was for: answer, repair; of helpers embed, judge, verify, classify."""
    started_at: float
    status: AttemptStatus = AttemptStatus.OPEN
    sent: bool | None = None
    streamed: bool = False
    waited_s: float = 0.0
    """Waited before it, for backoff and the endpoint's limits."""
    ttft_s: float | None = None
    latency_s: float | None = None
    usage: Usage = Usage()
    worst_case_usd: Decimal | None = None
    cost_usd: Decimal | None = None
    cost_basis: CostBasis = "unknown"
    finish_reason: str | None = None
    error: str | None = None
    """Name of the error class, None without one."""
    http_status: int | None = None


class Seen(Struct, frozen=True, gc=False):
    """One attempt that answered, as routes look at it. None is unknown."""

    rung: str
    latency_s: float | None
    output_tokens: int | None


class CallRow(Struct, frozen=True, kw_only=True, gc=False):
    """One call as a ledger row: numbers, names and a key hash, no text. What it cost is in its attempts.

    A hit has no attempts: what it saved is here. model is what was asked for, rung what answered.
    """

    call_id: str
    session: str
    started_at: float
    kind: Literal["chat", "embed"] = "chat"
    status: AttemptStatus = AttemptStatus.OPEN
    model: str | None = None
    rung: str | None = None
    source: Source | None = None
    coalesced: bool = False
    feature: str | None = None
    user: str | None = None
    cache: CacheMode = "use"
    key_hash: str | None = None
    finish_reason: str | None = None
    ttft_s: float | None = None
    latency_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    saved_usd: Decimal | None = None
    saved_s: float | None = None
    repairs: int = 0
    why: Why = NOTHING
    """Why the route chose as it did, and for a semantic hit how safe the match was; without any text of a prompt."""
    accepted: bool = True
    """False for a cascade's best answer where none was accepted."""
    error: str | None = None
    cell_id: str | None = None
    """The cell of the notebook that asked, None elsewhere."""
    notebook: str | None = None
    """Which notebook it was: a digest of its path, None elsewhere."""

    @property
    def reason(self) -> str:
        """Why the route chose as it did, in words for people."""
        return self.why.reason


class CallRecord(Struct, frozen=True, kw_only=True):
    """What an on_call hook gets when a call is over: its row, and its attempts in order."""

    call: CallRow
    attempts: tuple[Attempt, ...]
    refused: tuple[str, Decimal] | None = None
    """The hard budget that refused it, or the last model that was to be asked: its scope and its limit in USD. None: none."""
