"""Reply: what comes back from the road, and how it shows itself."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct, field

from nbllm.core.messages import Attempt, CostBasis, Source, Usage
from nbllm.core.why import NOTHING, Why


class Reply(Struct, frozen=True, kw_only=True):
    """One answer.

    usage is that of the answer; cost_usd is what this call cost, failed attempts and repairs included: 0 for a hit, None when
    unknown. ttft_s is None for a whole answer. latency_s is this call's own, from the door back to it, a hit's own when it was one.
    """

    text: str
    model: str
    rung: str
    source: Source
    finish_reason: str | None
    call_id: str
    data: Any = None
    reasoning: str = ""
    message: Mapping[str, Any] = field(default_factory=dict)
    """The assistant message in OpenAI's shape, ready to be appended to a conversation."""
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal | None = None
    cost_basis: CostBasis = "unknown"
    ttft_s: float | None = None
    latency_s: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    logprobs: tuple[Mapping[str, Any], ...] = ()
    vectors: Any = None
    """float32 array of shape (texts, dimensions), for embeddings; else None."""
    repairs: int = 0
    repair_cost_usd: Decimal | None = None
    coalesced: bool = False
    saved_usd: Decimal | None = None
    saved_s: float | None = None
    age_s: float | None = None
    """How old a stored answer was, None for a fresh one."""
    simulated: bool = False
    interrupted: bool = False
    """True for a partial answer that a person stopped; never cached, never returned by `ask`."""
    notes: tuple[str, ...] = ()
    why: Why = NOTHING
    """The route and its reason; for a semantic hit what was matched, and how safely."""
    verdicts: Mapping[str, bool] | None = None
    """What verifiers have said of this stored answer, by a digest of who was asked what."""
    rejected: int = 0
    """How many answers of earlier models of a cascade were not accepted."""
    held_s: float | None = None
    """By how much a cascade delayed the first token that a watcher sees, in seconds; None where there was none."""
    accepted: bool = True
    """False for a cascade's best answer where none was accepted."""

    @property
    def truncated(self) -> bool:
        """Whether a limit on tokens cut the answer."""
        return self.finish_reason == "length"

    @property
    def label(self) -> str:
        """The rung that answered, as it is shown to people."""
        return f"{self.rung} (simulated)" if self.simulated else self.rung

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def __repr__(self) -> str:
        """Return the reply in short: who answered, how, and the first words. `print(reply)` prints the whole text."""
        from nbllm.core.reply_view import reply_short

        return reply_short(self)

    def _repr_markdown_(self) -> str:
        from nbllm.core.reply_view import reply_markdown

        return reply_markdown(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # IPython's protocol
        from nbllm.core.reply_view import reply_plain

        printer.text("Reply(...)" if cycle else reply_plain(self))
