"""The side channel on which an answer is watched as it comes."""

from __future__ import annotations

from typing import Protocol

from nbllm.core.records import Attempt, Delta


class Sink(Protocol):
    """Where an answer is watched. Called on the loop; must not block and must not raise."""

    def started(self, attempt: Attempt) -> None:
        """An attempt is about to be sent."""

    def delta(self, delta: Delta) -> None:
        """A piece of the answer came."""

    def restarted(self, reason: str) -> None:
        """What came so far is void; the answer begins anew ("repair", "interrupted", "rejected", "fallback")."""


class NullSink:
    """Nobody watches."""

    def started(self, attempt: Attempt) -> None:
        """Ignore it."""

    def delta(self, delta: Delta) -> None:
        """Ignore it."""

    def restarted(self, reason: str) -> None:
        """Ignore it."""
