"""The outside world: ways to reach models, and what they tell as they go."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct, field

from nbllm.core.messages import Content, Rung
from nbllm.core.records import Delta, Ending, Usage


class RateLimits(Struct, frozen=True, kw_only=True, gc=False):
    """What the provider's headers say of its limits. None: not said. reset is seconds from now."""

    requests_limit: int | None = None
    requests_left: int | None = None
    requests_reset_s: float | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


class Wire(Struct, frozen=True, kw_only=True):
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
