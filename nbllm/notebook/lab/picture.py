"""The state of this kernel as the panel sees it: read from the ledger once, then kept up as calls end. One thread at a time.

Reading takes a moment in which calls may end: what was read of them is not added again. Where that cannot be told, because too much
happened, the session is read again later; once it could be told, what is added is exact.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from heapq import nlargest
from typing import TYPE_CHECKING, TypeVar

from nbllm.core.messages import Attempt, CallRecord
from nbllm.flow_context import CELLS
from nbllm.notebook.lab import state as states
from nbllm.notebook.lab.origin import name_now
from nbllm.notebook.lab.reading import Day, SessionRead, Standing, TodayRead, endpoint_lines
from nbllm.notebook.lab.rows import Sums, Tries, call_line
from nbllm.notebook.lab.values import money

if TYPE_CHECKING:
    from nbllm.notebook.lab.shapes import CallLine, Running, State
    from nbllm.notebook.lab.watching import Watching

    Line = TypeVar("Line", CallLine, Running)

_SETTLES_S = 1.0
_MOST_MEANWHILE = 100
"""Calls that may end while the ledger is read, for what was read to be taken as it is."""


class Picture:
    """What is known; `state` is what to show of it. exact: what is shown of the session is what the ledger has."""

    def __init__(self, watching: Watching) -> None:
        self.exact = False
        self.was_read = False
        self.refused: tuple[str, Decimal] | None = None
        """The budget that refused the last call that a model was to answer, and its limit in USD."""
        self._watching = watching
        self._sums = Sums()
        self._calls: list[CallLine] = []
        self._tries = Tries()
        self._standing: Standing | None = None
        self._in_read: set[str] = set()
        self._renames = 0
        self._today: TodayRead | None = None
        self._meanwhile: deque[tuple[float, CallRecord]] = deque(maxlen=_MOST_MEANWHILE + 1)

    def take(self, records: Sequence[CallRecord]) -> None:
        """Add calls that have ended."""
        # A row is in the ledger a moment before its call is told of: what was read of it is not added again.
        records = [record for record in records if record.call.call_id not in self._in_read]
        if not records:
            return
        self._add(records)
        now_s = time.monotonic()
        self._meanwhile.extend((now_s, record) for record in records)

    def _add(self, records: Sequence[CallRecord]) -> None:
        """Add calls to what is shown."""
        sums, tries = self._sums, self._tries
        for record in records:
            own = _own(record)
            sums.add(record.call, own)
            tries.add(own)
            if record.refused is not None or record.call.source == "model":
                self.refused = record.refused
        newest = nlargest(states.MOST_CALLS, records, key=lambda record: record.call.started_at)
        lines = [call_line(record.call, _own(record)) for record in newest]
        self._calls = states.merged(self._calls, _named_as_now(lines))

    def begins_to_read(self) -> None:
        """The session is about to be read. What has just ended may not be in the ledger yet: it is looked for, too."""
        since_s = time.monotonic() - _SETTLES_S
        while self._meanwhile and self._meanwhile[0][0] < since_s:
            self._meanwhile.popleft()

    def take_session(self, read: SessionRead) -> None:
        """Take over what was read, and add what has ended since, as far as it was not in it. exact: whether that could be told."""
        meanwhile = [record for _, record in self._meanwhile]
        had = [read.has(record.call) for record in meanwhile]
        self.exact = read.whole and None not in had and len(meanwhile) <= _MOST_MEANWHILE and not self._watching.lost
        self._watching.lost, self.was_read = False, True
        ended = {record.call.call_id for record in meanwhile}
        self._watching.found_open(row for row in read.under_way if row.call_id not in ended)
        self._sums, self._tries, self._calls = read.sums, read.tries, _named_as_now(read.calls)
        self._in_read = {line["call_id"] for line in read.calls}
        self._add([record for record, was_in in zip(meanwhile, had, strict=True) if was_in is False])

    def take_standing(self, standing: Standing) -> None:
        """Take over how budgets and endpoints stand."""
        self._standing = standing

    def take_today(self, today: TodayRead | None) -> None:
        """Take over what there was today beside the session; None: it is not known."""
        self._today = today

    def _day(self) -> Day | None:
        """Return this day, the session as it is shown included; None while either is not known."""
        today, sums = self._today, self._sums
        if today is None or (today.of_session and not self.was_read):
            return None
        own_usd, own_calls = sums.cost_usd - today.before.cost_usd, sums.calls - today.before.calls
        return Day(today.others.cost_usd + max(own_usd, Decimal(0)), today.others.calls + max(own_calls, 0))

    def models(self) -> list[str]:
        """Return the models that the calls shown went to."""
        return list(dict.fromkeys(row["rung"] for row in self._calls if row["rung"]))[:50]

    def state(self, now_s: float, now: float) -> State:
        """Return what to show, the cache mode left to whoever asks. now_s is monotonic, now Unix time."""
        standing = self._standing
        if self._renames != CELLS.renames:
            self._renames, self._calls = CELLS.renames, _named_as_now(self._calls)
        lives = self._watching.lives()
        running, tokens_per_s = self._watching.pace(lives)
        day = self._day()
        return {
            "session": self._sums.shown(self._calls, running=running, tokens_per_s=tokens_per_s),
            "today": {"cost_usd": None if day is None else money(day.cost_usd), "calls": 0 if day is None else day.calls},
            "budgets": [] if standing is None else standing.budgets,
            "running": _named_as_now(self._watching.running(lives, now_s, now)),
            "calls": self._calls,
            "endpoints": endpoint_lines(standing, self._tries),
            "cache_mode": None,
        }


def _own(record: CallRecord) -> Sequence[Attempt]:
    """Return the attempts of a call's own row; those of a shared run may stand on another's."""
    attempts, call_id = record.attempts, record.call.call_id
    if len(attempts) == 1 and attempts[0].call_id == call_id:  # as a rule
        return attempts
    return [one for one in attempts if one.call_id == call_id]


def _named_as_now(lines: list[Line]) -> list[Line]:
    """Return lines with the tags that their notebooks have now: one that was renamed keeps its calls."""
    if not CELLS.former:
        return lines
    return [{**line, "notebook": name_now(line["notebook"], line["started_at"])} for line in lines]
