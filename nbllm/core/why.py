"""Why an answer came from where it came: the route and its reason; for a match by similarity what was matched, and how safely."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct
from msgspec.structs import force_setattr


class GuardVerdict(Protocol):
    """What a guard says of a match: its name, whether the match passed, and why. See nbllm.core.guards."""

    @property
    def guard(self) -> str:
        """The guard's name, such as "numbers"."""

    @property
    def passed(self) -> bool:
        """Whether the match may be served as far as this guard can tell."""

    @property
    def detail(self) -> str:
        """What it saw, in words for people; it may hold words of the texts."""


class Why(Struct, frozen=True, kw_only=True, gc=False):
    """The reason for one answer. None: nothing of the kind applies.

    route: the name of the route, None where models or the ladder were named directly. reason: in words for people. matched_text:
    the earlier question whose answer was served; similarity: to this one, 0 to 1. guards: the verdicts on that match. threshold:
    the cut-off that was in force, of a similarity or of a cascade's mean log probability. error_upper: the upper bound of its
    error, of the plan plan_id.
    """

    route: str | None = None
    reason: str = ""
    matched_text: str | None = None
    similarity: float | None = None
    guards: tuple[GuardVerdict, ...] | None = None
    threshold: float | None = None
    error_upper: float | None = None
    plan_id: str | None = None

    def over(self, chosen: Why) -> Why:
        """Return what the route chose, with what this one knows besides: a stage further down says only what it has found."""
        if self is NOTHING or self is chosen:
            return chosen
        made = Why()
        for name in self.__struct_fields__:
            own = getattr(self, name)
            # Not replace(): it would copy a reason of "" over the route's own.
            force_setattr(made, name, getattr(chosen, name) if own is None or own == "" else own)
        return made

    def without_texts(self) -> Why:
        """Return it as the ledger may keep it: without the matched question, guards by name and verdict only."""
        if self.matched_text is None and self.guards is None:
            return self
        return Why(
            route=self.route,
            reason=self.reason,
            similarity=self.similarity,
            guards=None if self.guards is None else tuple(GuardRow(one.guard, one.passed) for one in self.guards),
            threshold=self.threshold,
            error_upper=self.error_upper,
            plan_id=self.plan_id,
        )


class GuardRow(Struct, frozen=True, gc=False):
    """A verdict as the ledger keeps it: what it saw are words of a text, which the ledger does not hold."""

    guard: str
    passed: bool
    detail: str = ""


NOTHING = Why()
"""Nothing is known."""


def guards_to_text(guards: tuple[GuardVerdict, ...] | None) -> str | None:
    """Return verdicts on one line, as the ledger's column has them: "numbers negation !names"; "!" marks those that said no."""
    return None if guards is None else " ".join(one.guard if one.passed else f"!{one.guard}" for one in guards)


def guards_from_text(text: str | None) -> tuple[GuardVerdict, ...] | None:
    """Return the verdicts that guards_to_text wrote."""
    return None if text is None else tuple(GuardRow(name.removeprefix("!"), not name.startswith("!")) for name in text.split())
