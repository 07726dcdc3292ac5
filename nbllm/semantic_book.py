"""The semantic cache as a person works with it: what it met, labels, a calibrated plan, wrong answers taken out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nbllm.core.ports.matches import Label, Match, Matches, MatchKind, Origin
from nbllm.errors import InvalidRequest
from nbllm.storage.sweeping import sweep

if TYPE_CHECKING:
    from nbllm.books import Books
    from nbllm.house import House

__all__ = ["Marked", "SemanticBook"]


class HasCallId(Protocol):
    """A Reply, or anything else that knows its call."""

    @property
    def call_id(self) -> str:
        """The call's row."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What marking an answer did. evicted: cache entries that are gone. blocked: whether a pair may never match again."""

    call_id: str
    wrong: bool
    evicted: int
    blocked: bool

    def __repr__(self) -> str:
        """Return what happened, in words."""
        if not self.wrong:
            return f"Marked as right: {self.call_id}."
        pair = " and these two questions will never stand for each other again" if self.blocked else ""
        entries = "1 stored answer was" if self.evicted == 1 else f"{self.evicted} stored answers were"
        return f"Marked as wrong: {entries} taken out of the cache{pair}."


class SemanticBook:
    """`client.semantic`: matches, labels and plans of the client's home. Not for the client's own loop."""

    def __init__(self, books: Books) -> None:
        self._books = books

    @property
    def _house(self) -> House:
        return self._books._open_house()  # noqa: SLF001 - the book is a page of the client

    @property
    def _matches(self) -> Matches:
        return self._house.storage.matches

    # ------------------------------------------------------------------ looking

    def matches(self, limit: int = 50, *, kind: MatchKind | None = None) -> Sequence[Match]:
        """Return what was met, newest first: in shadow what would have been served, else hits and audits."""
        return self._matches.newest(limit, kind=kind)

    def to_label(self, limit: int = 10, *, at_least: float = -1.0) -> Sequence[Match]:
        """Return matches worth a label: in random order, so that the first n are a random sample of all at least that similar."""
        return self._matches.to_label(limit, at_least=at_least)

    def waiting(self, *, at_least: float = -1.0) -> int:
        """Return how many matches are offered for a label and have none."""
        return self._matches.unread(at_least=at_least)

    def labels(self, *, origin: Origin | None = None) -> Sequence[Label]:
        """Return labels, oldest first."""
        return self._matches.labels(origin=origin)

    # ------------------------------------------------------------------ saying

    def label(self, match: Match, correct: bool, *, origin: Literal["audit", "judge"] = "audit") -> None:
        """Say whether a match's stored answer would have been right for its question.

        A label of an audit that speaks against the plan in force may take it back (see `taken_back`).
        """
        self._keep(match, correct, origin)
        if match.kind == "audit" and match.plan_id is not None and origin == "audit":
            self._hold_against_audits(match.plan_id)

    def mark(self, reply_or_call_id: HasCallId | str, *, wrong: bool = True, owner: str | None = None) -> Marked:
        """Say that an answer was wrong, or right.

        Wrong: the stored answer is taken out of the cache and its question out of the index; where another question had got it, the
        two never match again. The label counts as `marked`: it was not sampled, so it calibrates nothing. owner: only a call of
        this owner may be marked (a service's callers). Raises InvalidRequest for a call that is not known.
        """
        call_id = reply_or_call_id if isinstance(reply_or_call_id, str) else reply_or_call_id.call_id
        match = self._matches.of_call(call_id)
        if match is not None and match.kind == "hit" and (owner is None or match.owner == owner):
            self._keep(match, not wrong, "marked")
            if not wrong:
                return Marked(call_id, wrong=False, evicted=0, blocked=False)
            self._matches.block(match.query, match.question)
            return Marked(call_id, wrong=True, evicted=self._evict(match.key), blocked=True)
        key = None if owner is not None else self._key_of(call_id)
        if key is None:
            raise InvalidRequest(
                f"No call {call_id!r:.60} is known whose answer could be marked.",
                hint="Give the Reply, or its call_id (%llm_calls).",
            )
        return Marked(call_id, wrong=wrong, evicted=self._evict(key) if wrong else 0, blocked=False)

    def _keep(self, match: Match, correct: bool, origin: Origin) -> None:
        self._matches.label(
            Label(
                label_id=uuid.uuid4().hex,
                at=time.time(),
                correct=bool(correct),
                origin=origin,
                score=match.score,
                scope=match.scope,
                embedder=match.embedder,
                guards=match.guards,
                query=match.query,
                question=match.question,
                probability=match.probability,
                match_id=match.match_id,
                plan_id=match.plan_id,
                kind=match.kind,
            )
        )

    def _evict(self, key: str) -> int:
        self._books._run(lambda house: house.storage.index.drop(key))  # noqa: SLF001 - see _house
        gone: int = self._house.storage.store.purge(key_prefix=key)
        return gone

    def _key_of(self, call_id: str) -> str | None:
        row = self._house.storage.ledger.call(call_id)
        return None if row is None else row.key_hash

    def purge(self, **which: Any) -> int:
        """Delete entries of the response cache (ResponseStore.purge), with the questions that led to them."""
        gone: int = self._house.storage.store.purge(**which)
        if gone:
            self.sweep()
        return gone

    def sweep(self) -> int:
        """Take the questions out of the index whose answers are gone, and return how many there were."""
        storage = self._house.storage
        return self._books._run(lambda _: sweep(storage.index, storage.store))  # noqa: SLF001 - see _house

    def forget(self) -> int:
        """Delete all matches, labels and indexed questions, and return how many there were. Blocked pairs stay blocked."""
        indexed: int = self._books._run(lambda house: house.storage.index.clear())  # noqa: SLF001 - see _house
        return self._matches.forget() + indexed
