"""From what the ledger and the hooks say to what the extension shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from nbllm.core.messages import Attempt, AttemptStatus, CallRow
from nbllm.core.ports import UsageRow
from nbllm.core.usage_table import simulated_usd
from nbllm.notebook.lab.values import count, money, name, name_or_none, seconds, tag_or_none

if TYPE_CHECKING:
    from nbllm.books import BudgetLine
    from nbllm.notebook.lab.shapes import Budget, CallLine, Level, SessionNumbers

_DAY = re.compile(r"day:\d{4}-\d\d-\d\d")
_HITS = ("cache", "semantic")
_RESCUES = ("stale", "static")
_MOST_LATENCIES = 60
_ERRORS = {"CancelledError": "Stopped", "KeyboardInterrupt": "Stopped"}


def was_sent(attempt: Attempt) -> bool:
    """Whether a request was put on a socket, or may have been."""
    return attempt.sent is not False


def is_simulated(row: CallRow) -> bool:
    """Whether no real model answered, or was to."""
    return (row.rung or row.model or "").startswith("sim/")


def cost_usd(attempts: Iterable[Attempt]) -> Decimal | None:
    """Return what a call cost, None when a part of it is unknown."""
    total = Decimal(0)
    for attempt in attempts:
        if attempt.cost_usd is not None:
            total += attempt.cost_usd
        elif was_sent(attempt):
            return None
    return total


def call_line(row: CallRow, attempts: Sequence[Attempt]) -> CallLine:
    """Return a call that is over as one line; attempts: its own."""
    status = row.status.value
    return {
        "call_id": row.call_id,
        "started_at": min(max(row.started_at, 0.0), 1e11),
        "model": name(row.model or row.rung or ""),
        "rung": name_or_none(row.rung),
        "source": row.source,
        "status": status if status in ("done", "failed", "cancelled") else "unknown",  # type: ignore[typeddict-item]
        "error": name_or_none(_ERRORS.get(row.error or "", row.error)),
        "feature": name_or_none(row.feature),
        "ttft_s": seconds(row.ttft_s),
        "latency_s": seconds(row.latency_s),
        "cost_usd": money(cost_usd(attempts)),
        "saved_usd": money(row.saved_usd),
        "input_tokens": count(row.input_tokens),
        "output_tokens": count(row.output_tokens),
        "cell_id": name_or_none(row.cell_id),
        "notebook": tag_or_none(row.notebook),
        "route": name_or_none(row.why.route),
        "reason": name_or_none(row.why.reason or None),
        "simulated": is_simulated(row),
    }


@dataclass(slots=True)
class Sums:
    """What a session has used: read from the ledger once, then added to as calls end, by the ledger's own rules."""

    cost_usd: Decimal = Decimal(0)
    unknown_cost_calls: int = 0
    simulated_usd: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    hits: int = 0
    saved_usd: Decimal = Decimal(0)
    failed: int = 0

    @classmethod
    def read(cls, totals: Sequence[UsageRow], models: Sequence[UsageRow]) -> Sums:
        """Return the sums of usage by "total" and by "model"."""
        if not totals:
            return cls()
        (row,) = totals
        return cls(
            cost_usd=row.cost_usd,
            unknown_cost_calls=row.unknown_cost_calls,
            simulated_usd=simulated_usd(models)[0],
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            calls=row.calls,
            hits=row.hits,
            saved_usd=row.saved_usd,
            failed=row.failed,
        )

    def add(self, row: CallRow, attempts: Sequence[Attempt]) -> None:
        """Add one call that is over; attempts: its own."""
        self._count(row, attempts, 1)
        self.hits += row.source in _HITS
        if row.saved_usd:
            self.saved_usd += row.saved_usd
        self.failed += row.status is not AttemptStatus.DONE or row.source in _RESCUES

    def leave_out(self, row: CallRow, attempts: Sequence[Attempt]) -> None:
        """Take out what the ledger has of a call that is under way: all of it is added when it ends."""
        self._count(row, attempts, -1)

    def _count(self, row: CallRow, attempts: Sequence[Attempt], sign: int) -> None:
        # One plain loop: at thousands of calls a second this is what a listening page costs.
        known, unknown = Decimal(0), False
        for one in attempts:
            usage = one.usage
            self.input_tokens += sign * (usage.input_tokens or 0)
            self.output_tokens += sign * (usage.output_tokens or 0)
            if one.cost_usd is not None:
                known += one.cost_usd
            elif was_sent(one):
                unknown = True
        self.cost_usd += sign * known
        self.unknown_cost_calls += sign * unknown
        if is_simulated(row):
            self.simulated_usd += sign * known
        self.calls += sign

    def shown(self, calls: Sequence[CallLine], *, running: int, tokens_per_s: float | None) -> SessionNumbers:
        """Return the session's numbers; calls: the newest, of which model calls give the latencies, oldest first."""
        answered = (row["latency_s"] for row in calls if row["source"] == "model" and row["status"] == "done")
        latencies = [latency_s for latency_s in answered if latency_s is not None]
        return {
            "cost_usd": money(self.cost_usd) or "0",
            "cost_known": self.unknown_cost_calls == 0,
            "simulated_usd": money(min(self.simulated_usd, self.cost_usd)) or "0",
            "input_tokens": count(self.input_tokens) or 0,
            "output_tokens": count(self.output_tokens) or 0,
            "calls": max(0, self.calls),
            "hits": self.hits,
            "saved_usd": money(self.saved_usd) or "0",
            "failed": self.failed,
            "running": running,
            "tokens_per_s": tokens_per_s,
            "latency_s": latencies[:_MOST_LATENCIES][::-1],
        }


@dataclass(slots=True)
class Tries:
    """The attempts of each endpoint: how many were sent, how many of them failed. What a person stopped is no failure."""

    sent: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Count attempts that are over."""
        for one in attempts:
            if not was_sent(one) or one.status is AttemptStatus.OPEN:
                continue
            self.sent[one.endpoint] = self.sent.get(one.endpoint, 0) + 1
            if one.status in (AttemptStatus.FAILED, AttemptStatus.UNKNOWN):
                self.failed[one.endpoint] = self.failed.get(one.endpoint, 0) + 1

    def error_rate(self, endpoint: str) -> float | None:
        """Return the share that failed, None without any."""
        sent = self.sent.get(endpoint, 0)
        return round(self.failed.get(endpoint, 0) / sent, 4) if sent else None


def budget_row(line: BudgetLine, refused: tuple[str, Decimal] | None = None) -> Budget:
    """Return a budget as one bar. Scopes are called session, day, or feature:NAME, whichever session or day it is.

    refused: the budget that refused the last call, and its limit then (CallRecord.refused).
    """
    return {
        "scope": "session" if line.scope.startswith("session:") else "day" if _DAY.fullmatch(line.scope) else name(line.scope),
        "spent_usd": money(line.spent_usd) or "0",
        "reserved_usd": money(line.reserved_usd) or "0",
        "hard_usd": money(line.hard_usd),
        "soft_usd": money(line.soft_usd),
        "level": _level(line, refused),
    }


def _level(line: BudgetLine, refused: tuple[str, Decimal] | None) -> Level:
    # What is reserved is spent to whoever asks next; and a call may be too dear for what is left.
    if line.hard_usd is not None and (
        line.spent_usd + line.reserved_usd >= line.hard_usd or refused == (line.scope, line.hard_usd)
    ):
        return "hard"
    return "soft" if line.soft_usd is not None and line.spent_usd >= line.soft_usd else "ok"
