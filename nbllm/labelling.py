"""What the semantic cache met, and what people say of it: matches, labels, wrong answers taken out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Never, Protocol, TypeVar, Unpack

from nbllm.asking import Prompt
from nbllm.core.ports.matches import Label, Match, Matches, MatchKind, Origin
from nbllm.core.reply import Reply
from nbllm.errors import InvalidRequest
from nbllm.pair_files import pairs_of
from nbllm.settings import CallOptions, EmbedOptions, Settings
from nbllm.storage.sweeping import missing_of, sweep

if TYPE_CHECKING:
    from nbllm.core.ports import ResponseStore
    from nbllm.house import House

T = TypeVar("T")
_AT_ONCE = 500
"""How many keys are looked up in one turn of the client's loop, which takes half a millisecond."""
_TURNS = 100
"""Of so many matches, at the top of the random order, any may be labelled next."""


class Asking(Protocol):
    """What is needed of a Client."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    def ask(self, prompt: Prompt, *more: Never, **options: Unpack[CallOptions]) -> Reply:
        """See Client.ask."""

    def embed(self, texts: Sequence[str], *more: Never, **options: Unpack[EmbedOptions]) -> Any:
        """See Client.embed."""

    def configure(self, origin: str, **values: Any) -> None:
        """See Client.configure."""

    def _open_house(self) -> House: ...

    def _run(self, work: Callable[[House], Coroutine[Any, Any, T]]) -> T: ...


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


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. labels: kept. stopped: pairs that a guard stopped, so that they are no hits and say nothing of them."""

    labels: int
    stopped: int


class Labelling:
    """Matches and labels of a client's home. Not for the client's own loop."""

    def __init__(self, client: Asking) -> None:
        self._client = client

    @property
    def _house(self) -> House:
        return self._client._open_house()  # noqa: SLF001 - a page of the client

    @property
    def _matches(self) -> Matches:
        return self._house.storage.matches

    # ------------------------------------------------------------------ looking

    def matches(self, limit: int = 50, *, kind: MatchKind | None = None) -> Sequence[Match]:
        """Return what was met, newest first: in shadow what would have been served, else hits and audits."""
        return self._matches.newest(limit, kind=kind)

    def to_label(self, limit: int = 10) -> Sequence[Match]:
        """Return matches worth a label, in random order: label from the top, and what is labelled is a random sample of all."""
        return self._matches.to_label(limit)

    def match_of(self, call_id: str) -> Match | None:
        """Return what a call met, None for a call that met nothing, or that is forgotten."""
        return self._matches.of_call(call_id)

    def waiting(self) -> int:
        """Return how many matches are offered for a label and have none."""
        return self._matches.unread()

    def labels(self, *, origin: Origin | None = None) -> Sequence[Label]:
        """Return labels, oldest first."""
        return self._matches.labels(origin=origin)

    def _in_use(self) -> tuple[str, str]:
        """Return the names of the embedder and of the guards in force."""
        settings = self._client.settings.semantic_cache
        embedder: str = self._client._run(lambda house: house.road.semantic.embedding.identity(settings.embedder))  # noqa: SLF001 - a page of the client
        return embedder, self._house.road.semantic.matching.guards_name(settings)

    # ------------------------------------------------------------------ saying

    def label(self, match: Match, correct: bool, *, origin: Literal["audit", "judge"] = "audit") -> None:
        """Say whether a match's stored answer would have been right for its question.

        A label of an audit that speaks against the plan in force may take it back (see `taken_back`). One of a match that was not
        offered by chance (a hit, what a guard stopped, one picked from `matches()` before its turn) is no sample: it counts as
        `marked`. Raises InvalidRequest for what is no match.
        """
        if not isinstance(match, Match):
            raise InvalidRequest(f"{match!r:.60} is no match.", hint="Take one of client.semantic.to_label().")
        sampled = match.probability is not None and not match.failed and self._has_its_turn(match)
        self._keep(match, correct, "marked" if origin == "audit" and not sampled else origin)
        if origin == "audit":
            self._labelled(match)

    def _has_its_turn(self, match: Match) -> bool:
        """Whether a match is among the next that are offered, or was labelled when it was."""
        if any(one.match_id == match.match_id for one in self._matches.to_label(_TURNS)):
            return True
        return any(one.match_id == match.match_id for one in self._matches.labels(origin="audit"))

    def _labelled(self, match: Match) -> None:
        """Do what a person's label of a match asks for."""

    def mark(self, reply_or_call_id: HasCallId | str, *, wrong: bool = True, owner: str | None = None) -> Marked:
        """Say that an answer was wrong, or right.

        Wrong: the stored answer is taken out of the cache and its question out of the index; where another question had got it, the
        two never match again. The label counts as `marked`: it was not sampled, so it calibrates nothing. owner: only a call of
        this owner may be marked (a service's callers). Raises InvalidRequest for a call that is not known.
        """
        call_id = reply_or_call_id if isinstance(reply_or_call_id, str) else getattr(reply_or_call_id, "call_id", "")
        match = self._hit_of(call_id, owner)
        if match is not None:
            self._keep(match, not wrong, "marked")
            if not wrong:
                return Marked(call_id, wrong=False, evicted=0, blocked=False)
            self._matches.block(match.query, match.question)
            return Marked(call_id, wrong=True, evicted=self._evict(match.key), blocked=True)
        row = None if owner is not None else self._house.storage.ledger.call(call_id)
        key = None if row is None or row.source == "semantic" else row.key_hash
        if key is None:
            raise InvalidRequest(
                f"No call {call_id!r:.60} is known whose answer could be marked.",
                hint="Give the Reply, or its call_id (%llm_calls).",
            )
        return Marked(call_id, wrong=wrong, evicted=self._evict(key) if wrong else 0, blocked=False)

    def _hit_of(self, call_id: str, owner: str | None) -> Match | None:
        """Return the hit that a call got, its own or that of the run which it shared; None for another owner's.

        Not one that a cascade rejected: its answer is another model's.
        """
        match, row = self._matches.of_call(call_id), self._house.storage.ledger.call(call_id)
        if row is not None and row.source != "semantic":
            return None
        if match is not None and (row is None or match.asked == row.key_hash):
            return match if match.kind == "hit" and owner in (None, match.owner) else None
        if row is None or not row.key_hash or owner not in (None, row.user):
            return None
        return self._matches.hit_of(row.key_hash)

    def import_pairs(self, source: Any) -> Imported:
        """Import labelled pairs: a CSV file, a DataFrame, or tuples (query, question, correct).

        Each is embedded with the embedder in force and held against the guards; those that a guard stops would be no hits, so they
        are counted and left out. A plan from imported pairs holds for pairs like these. Raises InvalidRequest with the row that is
        none, and what the embedder raises.
        """
        pairs = pairs_of(source)
        vectors = self._vectors([text for pair in pairs for text in pair[:2]])
        embedder, guards = self._in_use()
        settings, stopped = self._client.settings.semantic_cache, 0
        matching = self._house.road.semantic.matching
        for number, pair in enumerate(pairs):
            if any(not verdict.passed for verdict in matching.verdicts(pair.query, pair.question, settings)):
                stopped += 1
                continue
            score = float(vectors[2 * number] @ vectors[2 * number + 1])
            self._matches.label(
                Label(
                    label_id=uuid.uuid4().hex, at=time.time(), correct=pair.correct, origin="imported", score=score, scope="",
                    embedder=embedder, guards=guards, query=pair.query, question=pair.question,
                )
            )  # fmt: skip
        return Imported(len(pairs) - stopped, stopped)

    def _vectors(self, texts: list[str]) -> Any:
        """Return unit vectors, (n, d)."""
        import numpy as np

        embedder = self._client.settings.semantic_cache.embedder
        own = self._client._run(lambda house: house.road.semantic.embedding.here(embedder))  # noqa: SLF001 - a page of the client
        found = np.stack([own(text) for text in texts]) if own is not None else self._client.embed(texts, model=embedder)
        sizes = np.linalg.norm(found, axis=1, keepdims=True)
        return found / np.where(sizes > 0, sizes, 1.0)

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
        self._client._run(lambda house: house.storage.index.drop(key))  # noqa: SLF001 - a page of the client
        self._matches.blank([key])
        gone: int = self._house.storage.store.purge(key_prefix=key)
        return gone

    def purge(self, **which: Any) -> int:
        """Delete entries of the response cache (ResponseStore.purge), with the questions that led to them."""
        gone: int = self._house.storage.store.purge(**which)
        if gone and self._house.storage.indexed:
            self.sweep()
        return gone

    def stored(self, keys: Collection[str], *, within_s: float) -> int | None:
        """Return how many of these keys hold an entry of the response cache; None when that takes longer than within_s.

        Some at a time, so that calls on the loop do not wait for all of it.
        """
        end_s = time.monotonic() + within_s
        store, asked, gone = self._house.storage.store, list(keys), 0
        for start in range(0, len(asked), _AT_ONCE):
            gone += len(self._missing(store, asked[start : start + _AT_ONCE]))
            if time.monotonic() > end_s:
                return None
        return len(asked) - gone

    def _missing(self, store: ResponseStore, keys: list[str]) -> Sequence[str]:
        return self._client._run(lambda _: store.missing(keys))  # noqa: SLF001 - a page of the client

    def sweep(self) -> int:
        """Take questions out of the index whose answers are gone, and these out of what was met; return how many there were."""
        storage = self._house.storage
        held = self._matches.keys()
        gone = self._client._run(lambda _: missing_of(storage.store, held))  # noqa: SLF001 - a page of the client
        if gone:
            self._matches.blank(gone)
        return self._client._run(lambda _: sweep(storage.index, storage.store))  # noqa: SLF001 - a page of the client

    def forget(self) -> int:
        """Delete all matches, labels and indexed questions, and return how many there were. Blocked pairs stay blocked."""
        indexed: int = self._client._run(lambda house: house.storage.index.clear())  # noqa: SLF001 - a page of the client
        return self._matches.forget() + indexed
