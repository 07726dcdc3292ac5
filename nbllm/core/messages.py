"""What travels the road: Request down, Reply up, Delta past the side, and the records of what was done.

Content is what can change an answer, and every field of it is in the cache key. Options say how to get the answer, and
none of them is. Call is the one mutable thing: who pays, until when, and what was tried so far.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import Struct, field

from nbllm.core.pricing import Price
from nbllm.core.records import (
    NOWHERE,
    Attempt,
    AttemptStatus,
    CacheMode,
    CallRecord,
    CallRow,
    CostBasis,
    Delta,
    Ending,
    Origin,
    Partial,
    Source,
    ToolCallFragment,
    Usage,
)
from nbllm.core.sink import NullSink, Sink
from nbllm.core.why import NOTHING, Why
from nbllm.settings import Endpoint

if TYPE_CHECKING:
    from nbllm.core.reply import Reply
    from nbllm.settings.strategies import Cascade

__all__ = [
    "NOWHERE",
    "Attempt",
    "AttemptStatus",
    "CacheMode",
    "Call",
    "CallRecord",
    "CallRow",
    "Chat",
    "Check",
    "Content",
    "CostBasis",
    "DayScope",
    "Delta",
    "Embed",
    "Ending",
    "Message",
    "NullSink",
    "OnInterrupt",
    "Options",
    "Origin",
    "Partial",
    "ProviderKind",
    "Request",
    "Rung",
    "Sink",
    "Source",
    "ToolCallFragment",
    "Usage",
]

Message = Mapping[str, Any]
"""One message in OpenAI's shape: role, content (text, content parts or None), tool_calls, tool_call_id, name."""

OnInterrupt = Literal["restart", "raise"]
ProviderKind = Literal["openai_compatible", "litellm", "simulated"]
Check = Callable[[Any], object]
"""A user's check: gets `.data` when there is a schema, else `.text`; raises or returns False when the answer will not do."""


class Chat(Struct, frozen=True, kw_only=True):
    """What is asked of a chat model. None: not sent. Every field is in the cache key."""

    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    response_format: Mapping[str, Any] | None = None
    logprobs: bool | int | None = None
    """True: of the tokens in the answer. A number n: and of the n likeliest alternatives (`top_logprobs`)."""
    json_schema: Mapping[str, Any] | None = None
    """The JSON Schema of `schema=`; never a class identity, because cells are re-run."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0
    partition: str = ""


class Embed(Struct, frozen=True, kw_only=True):
    """Texts to embed, in one request. Every field is in the cache key."""

    texts: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0
    partition: str = ""


Content = Chat | Embed


class DayScope(NamedTuple):
    """One more budget that a call pays into, of one day (UTC). name: whose, such as "key:ab12"; day_usd None: only counted."""

    name: str
    day_usd: Decimal | None


class Options(Struct, frozen=True, kw_only=True):
    """How the answer is to be got. None of this can change an answer, so none of it is in the cache key."""

    schema_type: Any = None
    """What the user gave as `schema=`: `.data` is built from it. Its JSON is in `Chat.json_schema`."""
    check: Check | None = None
    repairs: int = 2
    retries: int = 2
    cache: CacheMode = "use"
    ttl_s: float | None = None
    stale_ok_s: float | None = None
    static: str | None = None
    deadline_s: float = 300.0
    ttft_s: float | None = 60.0
    idle_s: float | None = 60.0
    attempt_s: float | None = None
    on_interrupt: OnInterrupt = "restart"
    feature: str | None = None
    user: str | None = None
    budget_usd: Decimal | None = None
    scopes: tuple[DayScope, ...] = ()
    tags: tuple[str, ...] = ()
    semantic: bool | None = None
    """False: no similar question's answer for this one, nor this one's for others. None: as the settings say."""
    watched: bool = False
    """True when somebody watches the answer come: the provider is asked for a stream, else for a whole answer."""


class Rung(Struct, frozen=True, kw_only=True):
    """One model on one endpoint."""

    id: str
    """As the user names it: `<endpoint or provider>/<model>`."""
    model: str
    """As the endpoint knows it, on the wire."""
    endpoint_name: str
    endpoint: Endpoint
    provider: ProviderKind
    identity: str
    """The endpoint's identity in cache keys: stays the same when only a key, a price or a port of ours changes."""
    price: Price | None
    context_tokens: int | None = None
    max_output_tokens: int | None = None

    @property
    def simulated(self) -> bool:
        """Whether no real model answers here."""
        return self.provider == "simulated"

    @property
    def label(self) -> str:
        """The id as it is shown to people."""
        return f"{self.id} (simulated)" if self.simulated else self.id


class Call(Struct, kw_only=True):
    """The mutable side of one call. record makes it, deadline sets deadline_at_s, attempt appends, coalesce may hand it on."""

    call_id: str
    session: str
    started_at: float
    started_s: float
    deadline_at_s: float
    """On the loop's monotonic clock."""
    payer: Options
    """Whose feature, user and budget_usd pay for further attempts (a shared run changes hands)."""
    attempts: list[Attempt] = field(default_factory=list)
    attempts_before: int = 0
    """How many attempts on its row are not in `attempts`: those from before a shared run."""
    notes: list[str] = field(default_factory=list)
    key: str | None = None
    strategy: str | None = None
    """The route that has yet to choose, None where the rungs are fixed."""
    looked_over: bool = False
    """The fast door has looked for a stored answer on every rung that the strategy may choose."""
    cascade: Cascade | None = None
    """How the answers of all rungs but the last are judged; None: the first answer is the answer."""
    spill_s: float | None = None
    """Longest wait for limits while another rung is left, in seconds, of a route that spills over; None: its share of the time."""
    why: Why = NOTHING
    """The route and its reason. What a stage below finds besides, it says in its reply's own `why`; record puts both together."""
    looked_up: bool = False
    """The first rung's exact entry was already looked for on the caller's thread and is not there."""
    partial: Partial | None = None
    """What the last attempt that did not end well had received."""
    kept: bool = False
    """Whether the answer was kept in the cache under `key`."""
    may_store: Callable[[], Awaitable[bool]] | None = None
    """Asked before an answer is kept: a leader that lost its lease stores nothing. None: nothing to ask."""
    waited_s: float = 0.0
    """Waited since the last attempt, for backoff and the endpoints' limits."""
    flow: Mapping[str, Any] | None = None
    """The flow that the call is part of: its name and arguments, for the recordings."""
    origin: Origin = NOWHERE
    reserved_usd: Decimal | None = None
    """The worst case of the attempt that is about to be sent, None when unknown."""
    embedded: dict[tuple[str, str], Any] = field(default_factory=dict)
    """What came of each text that was embedded for this call, a vector or an error, by embedder and text."""
    refused: tuple[str, Decimal] | None = None
    """The hard budget that refused the model after the one whose answer is returned, and its limit in USD."""
    lowered: str | None = None
    """The note that said that max_tokens was lowered for the payer's budgets, None when it was not."""

    def note(self, text: str) -> None:
        """Say something to the user with the reply (once per call)."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def next_number(self) -> int:
        """The number of the next attempt on this call's row, from 1."""
        return 1 + self.attempts_before + sum(attempt.call_id == self.call_id for attempt in self.attempts)

    def spent(self) -> tuple[Decimal | None, CostBasis]:
        """Return what the attempts cost and how well that is known; (None, "unknown") when any of them is unknown."""
        total_usd = Decimal(0)
        basis: CostBasis = "exact"
        for attempt in self.attempts:
            if attempt.cost_usd is None:
                return None, "unknown"
            total_usd += attempt.cost_usd
            if attempt.cost_basis == "estimated":
                basis = "estimated"
        return total_usd, basis


class Request(Struct, frozen=True, kw_only=True):
    """One request on the road. `models` is what the caller named, () for the client's ladder; stages fill in the rest."""

    content: Content
    options: Options
    models: tuple[str, ...] = ()
    rungs: tuple[Rung, ...] = ()
    rung: Rung | None = None
    rungs_left: int = 1
    """Rungs from this one on, itself counted: its share of the remaining time is 1/rungs_left."""
    purpose: str = "answer"
    keep_if: Callable[[Reply], bool] | None = None
    """Of helpers: whether an answer is worth keeping, one that says something. None: every complete one is."""
    call: Call | None = None

    def on(self, rung: Rung, *, rungs_left: int) -> Request:
        """Return this request on one rung. Built by hand, as below: dataclasses.replace costs a tenth of a cache hit."""
        return Request(
            content=self.content,
            options=self.options,
            models=self.models,
            rungs=self.rungs,
            rung=rung,
            rungs_left=rungs_left,
            purpose=self.purpose,
            call=self.call,
        )

    def opened(self, call: Call) -> Request:
        """Return this request with its call."""
        return Request(content=self.content, options=self.options, models=self.models, rungs=self.rungs, call=call)

    def routed(self, rungs: tuple[Rung, ...]) -> Request:
        """Return this request with its rungs."""
        return Request(content=self.content, options=self.options, models=self.models, rungs=rungs, call=self.call)
