"""How a running engine does: what its Prometheus page says, and what that costs."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from nbllm.engines.catalog import ENGINES, MetricNames

State = Literal["ready", "wedged", "silent", "ended", "stopped"]
"""wedged: answers /health and completes nothing. silent: runs and does not answer. ended: died by itself. stopped: by us."""
WINDOW_S = 30.0
"""Tokens a second are those of so long ago until now."""
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)(?:\s+\S+)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Numbers of one page; None where the page has none. Tokens are counted since the engine started.

    work: all that moves while the engine works on something, () when the page has none of it. Requests that run or wait are not
    in it: they come while it is wedged, too.
    """

    running: float | None = None
    waiting: float | None = None
    kv_cache_use: float | None = None
    output_tokens: float | None = None
    input_tokens: float | None = None
    work: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """One engine at one moment. None is unknown. kv_cache_use: a share, 0 to 1. tokens_per_s: written, over the last 30 s.

    usd_per_mtok: what a million written tokens cost at that pace, from usd_per_hour. trouble: what is wrong, "" when nothing is.
    """

    name: str
    engine: str
    model: str
    state: State
    base_url: str
    uptime_s: float
    running: int | None = None
    waiting: int | None = None
    kv_cache_use: float | None = None
    tokens_per_s: float | None = None
    usd_per_hour: Decimal | None = None
    usd_per_mtok: Decimal | None = None
    trouble: str = ""


def samples(page: str) -> dict[str, list[float]]:
    """Return the values of each metric of a Prometheus page, one for each set of labels; what is no number is left out."""
    found: dict[str, list[float]] = {}
    for name, text in _SAMPLE.findall(page):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(name, []).append(value)
    return found


def metrics_of(page: str, names: MetricNames) -> Metrics:
    """Return the numbers of a page: counts are summed over its series (one for each engine core), shares averaged."""
    found = samples(page)

    def total(name: str) -> float | None:
        return sum(found[name]) if name in found else None

    shares = found.get(names.kv_cache_use)
    moving = (names.output_tokens, names.input_tokens, names.kv_cache_use, *names.work)
    return Metrics(
        running=total(names.running),
        waiting=total(names.waiting),
        kv_cache_use=sum(shares) / len(shares) if shares else None,
        output_tokens=total(names.output_tokens),
        input_tokens=total(names.input_tokens),
        work=tuple(sum(found[name]) for name in moving if name in found),
    )


def names_on(page: str) -> MetricNames:
    """Return the names of the engine whose page this seems to be; names of none when it is unknown."""
    known = (kind.metrics for kind in ENGINES.values() if kind.metrics.running)
    return next((names for names in known if names.running in page), MetricNames())


class Pace:
    """Tokens a second, from counts at moments. Not for several threads at once."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def add(self, at_s: float, tokens: float) -> None:
        """Take in how many tokens had been written at a moment. A count that fell (a restart) begins anew."""
        if self._seen and tokens < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((at_s, tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= at_s - WINDOW_S:
            self._seen.popleft()

    def tokens_per_s(self) -> float | None:
        """Return the pace over the last 30 s, None before two moments are known."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s)


def usd_per_mtok(usd_per_hour: Decimal | None, tokens_per_s: float | None) -> Decimal | None:
    """Return dollars per million tokens at that pace: usd_per_hour / 3600 / tokens_per_s x 10^6; None while nothing is written."""
    if usd_per_hour is None or not tokens_per_s or tokens_per_s <= 0:
        return None
    return (usd_per_hour * 1_000_000 / (3600 * Decimal(repr(tokens_per_s)))).quantize(Decimal("0.0001"))


def whole(number: float | None) -> int | None:
    """Return a count as int."""
    return None if number is None else round(number)


def as_row(status: EngineStatus) -> Mapping[str, str]:
    """Return a status as texts for a table, what is unknown left out."""
    row = {"engine": status.engine, "model": status.model, "state": status.state, "address": status.base_url}
    if status.running is not None:
        row["requests"] = f"{status.running} running" + (f", {status.waiting} waiting" if status.waiting is not None else "")
    if status.kv_cache_use is not None:
        row["KV cache"] = f"{status.kv_cache_use:.1%} used"
    if status.tokens_per_s is not None:
        row["pace"] = f"{status.tokens_per_s:,.1f} tokens/s"
    if status.usd_per_hour is not None:
        million = "" if status.usd_per_mtok is None else f", ${status.usd_per_mtok:,.2f} per million tokens at this pace"
        row["cost"] = f"${status.usd_per_hour:,.2f} an hour{million}"
    return row
