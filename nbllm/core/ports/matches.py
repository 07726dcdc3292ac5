"""What the semantic cache has seen and what people say of it: matches, labels, blocked pairs, looks, plans that were taken back."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Literal, Protocol

from msgspec import Struct

from nbllm.core.ports.ledger import Written

MatchKind = Literal["shadow", "hit", "audit"]
"""shadow: would have been served, was not. hit: was served. audit: a hit that was sent to the model all the same."""
Origin = Literal["audit", "marked", "imported", "judge"]
"""audit: a match that was offered by chance, with a known probability. marked: a person came upon it. imported: pairs from a file.
judge: a model said so."""


class Match(Struct, frozen=True, kw_only=True):
    """One question that met a stored one. Texts are redacted; times are Unix times in seconds.

    scope, embedder, guards: what it was compared with and for, as a plan names them. key: of the stored answer. score: cosine
    similarity. failed: the guards that spoke against it, with what they said; () for a match that counts. would: the stored answer;
    got: the model's, None where it was not asked. probability: with which it is offered for labelling, None: it is not. order:
    uniform in [0, 1), the order in which matches are offered, so that the first n of them are a random sample. owner: whose call.
    asked: the cache key of the question itself, which all calls have that shared its run.
    """

    match_id: str
    at: float
    call_id: str
    kind: MatchKind
    rung: str
    scope: str
    embedder: str
    guards: str
    query: str
    question: str
    key: str
    score: float
    failed: tuple[str, ...] = ()
    would: str = ""
    got: str | None = None
    probability: float | None = None
    order: float = 0.0
    plan_id: str | None = None
    owner: str | None = None
    asked: str = ""


class Label(Struct, frozen=True, kw_only=True):
    """Whether the stored answer would have been right for the question. match_id None: an imported pair."""

    label_id: str
    at: float
    correct: bool
    origin: Origin
    score: float
    scope: str
    embedder: str
    guards: str
    query: str
    question: str
    probability: float | None = None
    match_id: str | None = None
    plan_id: str | None = None
    kind: MatchKind | None = None


class Matches(Protocol):
    """What one home knows of the semantic cache. Everything but `note` and `blocked` may block and is for a caller's own thread."""

    def note(self, match: Match) -> Written:
        """Keep a match; losing one, to a full disk or a kill, is no error. Raises HomeUnusable."""

    def finish(self, match_id: str, got: str) -> Written:
        """Add the model's answer to a match."""

    def of_call(self, call_id: str) -> Match | None:
        """Return what a call met, None for a call that met nothing or that is forgotten."""

    def hit_of(self, asked: str) -> Match | None:
        """Return the newest hit of a question by its own cache key, None without one."""

    def keys(self) -> Sequence[str]:
        """Return the keys of the stored answers whose texts are held here."""

    def blank(self, keys: Sequence[str]) -> None:
        """Overwrite the texts of answers: the stored ones with these keys, and what the model said beside them."""

    def newest(self, limit: int, *, kind: MatchKind | None = None) -> Sequence[Match]:
        """Return matches, newest first, those that guards spoke against too."""

    def to_label(self, limit: int, *, scope: str | None = None, at_least: float = -1.0) -> Sequence[Match]:
        """Return matches that count, are offered and have no label of a person yet, in their random order."""

    def unread(self, *, at_least: float = -1.0) -> int:
        """Return how many of those there are."""

    def label(self, label: Label) -> None:
        """Keep a label; a later one for the same match by the same origin takes its place."""

    def labels(self, *, origin: Origin | None = None) -> Sequence[Label]:
        """Return labels, oldest first."""

    def forget(self) -> int:
        """Delete matches and labels with their texts, and return how many there were. Blocked pairs stay blocked."""

    def block(self, query: str, question: str) -> None:
        """Never let these two stand for each other again, in either direction."""

    def blocked(self, query: str, question: str) -> bool:
        """Whether they may not; quick enough for each hit."""

    def look(self, what: str, data: str) -> int:
        """Return the number of a look at some labels, from 1, counted for good: each spends some of the level.

        what: the label store that is looked at. data: a hash of the labels and of what was asked; the same again is the same look.
        """

    def take_back(self, plan_id: str, reason: str) -> bool:
        """Note that a plan no longer serves; return whether this was the first to say so."""

    def taken_back(self, plan_id: str) -> str | None:
        """Return why a plan no longer serves, None for one that may; quick enough for each hit."""

    def close(self) -> None:
        """Commit what waits and let go of the file."""


def pair_hash(query: str, question: str) -> str:
    """Return the name of a pair of texts, the same in either direction."""
    ends = sorted(" ".join(text.split()).casefold() for text in (query, question))
    return sha256("\0".join(ends).encode("utf-8", "surrogatepass")).hexdigest()
