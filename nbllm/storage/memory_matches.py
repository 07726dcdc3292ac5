"""Matches in memory: for tests, and for a home that cannot be used. Nothing outlives the process or is shared with another."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from msgspec.structs import replace

from nbllm.core.ports.ledger import Written
from nbllm.core.ports.matches import Label, Match, MatchKind, Origin, pair_hash


class MemoryMatches:
    """Matches in dicts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._matches: dict[str, Match] = {}
        self._labels: dict[str, Label] = {}
        self._blocked: set[str] = set()
        self._looks: dict[str, dict[str, int]] = {}
        self._taken_back: dict[str, str] = {}

    def note(self, match: Match) -> Written:
        """Keep one."""
        with self._lock:
            self._matches[match.match_id] = match
        return None

    def finish(self, match_id: str, got: str) -> Written:
        """Add the model's answer."""
        with self._lock:
            if match_id in self._matches:
                self._matches[match_id] = replace(self._matches[match_id], got=got)
        return None

    def of_call(self, call_id: str) -> Match | None:
        """Return the last match of a call that counted, else the last."""
        found = [match for match in self._matches.values() if match.call_id == call_id]
        return max(found, key=lambda match: (not match.failed, match.at), default=None)

    def hit_of(self, asked: str) -> Match | None:
        """Return the newest hit of a question."""
        found = [match for match in self._matches.values() if match.asked == asked and match.kind == "hit"]
        return max(found, key=lambda match: match.at, default=None)

    def keys(self) -> Sequence[str]:
        """Return the keys of the stored answers whose texts are here."""
        return list({match.key for match in self._matches.values() if match.would})

    def blank(self, keys: Sequence[str]) -> None:
        """Overwrite the texts of answers."""
        with self._lock:
            for match in [match for match in self._matches.values() if match.key in keys]:
                self._matches[match.match_id] = replace(match, would="", got=None)

    def newest(self, limit: int, *, kind: MatchKind | None = None) -> Sequence[Match]:
        """Return matches, newest first."""
        found = [match for match in self._matches.values() if kind in (None, match.kind)]
        return sorted(found, key=lambda match: -match.at)[:limit]

    def to_label(self, limit: int, *, scope: str | None = None, at_least: float = -1.0) -> Sequence[Match]:
        """Return what is offered and not labelled yet, in its random order."""
        found = [match for match in self._offered(at_least) if scope in (None, match.scope)]
        return sorted(found, key=lambda match: match.order)[:limit]

    def unread(self, *, at_least: float = -1.0) -> int:
        """Return how many are offered and not labelled."""
        return len(self._offered(at_least))

    def _offered(self, at_least: float) -> list[Match]:
        done = {label.match_id for label in self._labels.values() if label.origin != "judge"}
        offered = (m for m in self._matches.values() if not m.failed and m.probability is not None and m.score >= at_least)
        return [match for match in offered if match.match_id not in done]

    def label(self, label: Label) -> None:
        """Keep a label."""
        with self._lock:
            if label.match_id is not None:
                same = (label.match_id, label.origin)
                self._labels = {k: v for k, v in self._labels.items() if (v.match_id, v.origin) != same}
            self._labels[label.label_id] = label

    def labels(self, *, origin: Origin | None = None) -> Sequence[Label]:
        """Return labels, oldest first."""
        return sorted((label for label in self._labels.values() if origin in (None, label.origin)), key=lambda label: label.at)

    def forget(self) -> int:
        """Delete all matches and labels."""
        with self._lock:
            count = len(self._matches) + len(self._labels)
            self._matches, self._labels = {}, {}
        return count

    def block(self, query: str, question: str) -> None:
        """Block a pair."""
        self._blocked.add(pair_hash(query, question))

    def blocked(self, query: str, question: str) -> bool:
        """Whether a pair is blocked."""
        return pair_hash(query, question) in self._blocked

    def look(self, what: str, data: str) -> int:
        """Count a look, unless it is the same again."""
        with self._lock:
            looks = self._looks.setdefault(what, {})
            return looks.setdefault(data, len(looks) + 1)

    def take_back(self, plan_id: str, reason: str) -> bool:
        """Note that a plan no longer serves."""
        return self._taken_back.setdefault(plan_id, reason) is reason

    def taken_back(self, plan_id: str) -> str | None:
        """Return why a plan no longer serves."""
        return self._taken_back.get(plan_id)

    def close(self) -> None:
        """Nothing to let go of."""
