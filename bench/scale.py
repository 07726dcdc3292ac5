"""How things grow: calls beside a million ledger rows and a hundred thousand cache entries, and looking back over them."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.calls import client_for
from bench.fill import fill_cache, fill_ledger
from bench.measure import Row
from bench.views import looking_back
from nbllm import Client

SIZES = ((1_000, 0), (100_000, 0), (1_000_000, 0), (1_000_000, 100_000))
"""Ledger rows and cache entries of each home; the first is what the others are compared with."""
ROUNDS, HITS, CALLS = 24, 200, 60
"""Each round measures so many hits and uncached calls in every home."""
_numbers = itertools.count()


@dataclass
class Home:
    """A home of one size, and the medians of each round in it, in seconds."""

    name: str
    client: Client
    first_s: float
    """What the first call took: opening the files included."""
    hits_s: list[float] = field(default_factory=list)
    calls_s: list[float] = field(default_factory=list)


def growth(base_url: str, home: Path) -> list[Row]:
    """The cost of a call in homes of each size, measured by turns; percentiles, sums and plots of a million calls."""
    with ExitStack() as clients:
        homes = [_open(clients, base_url, home / f"growth-{rows}-{entries}", rows, entries) for rows, entries in SIZES]
        for turn in range(ROUNDS + 2):
            # By turns, and each time in another order: what else the machine does meanwhile hits all sizes alike.
            for place in range(len(homes)):
                _measure(homes[(turn + place) % len(homes)])
        looked_back = looking_back(homes[2].client, SIZES[2][0], home)
    for one in homes:
        del one.hits_s[:2], one.calls_s[:2]  # caches, connections and threads were warmed up in these
    return [_flat(homes), *looked_back]


def _open(clients: ExitStack, base_url: str, path: Path, rows: int, entries: int) -> Home:
    fill_ledger(path, rows)
    fill_cache(path, entries)
    began = time.perf_counter()
    client = clients.enter_context(client_for(base_url, path))
    client.ask("Say something")
    first_s = time.perf_counter() - began
    return Home(f"{rows:,} rows" + (f" and {entries:,} entries" if entries else ""), client, first_s)


def _measure(home: Home) -> None:
    ask, clock = home.client.ask, time.perf_counter
    times = []
    for _ in range(HITS):
        began = clock()
        reply = ask("Say something")
        times.append(clock() - began)
        if reply.source != "cache":
            raise RuntimeError(f"A hit was expected, not {reply.source}.")
    home.hits_s.append(median(times))
    home.calls_s.append(median(asyncio.run(_calls(home.client))))


async def _calls(client: Client) -> list[float]:
    times, clock = [], time.perf_counter
    for _ in range(CALLS):
        prompt = f"Say something of number {next(_numbers)}"
        began = clock()
        reply = await client.aask(prompt)
        times.append(clock() - began)
        if reply.source != "model":
            raise RuntimeError(f"An uncached call was expected, not {reply.source}.")
    return times


def _flat(homes: list[Home]) -> Row:
    def ratios(kind: str) -> list[float]:
        base = getattr(homes[0], kind)
        return [median(a / b for a, b in zip(getattr(home, kind), base, strict=True)) for home in homes]

    hits, calls = ratios("hits_s"), ratios("calls_s")
    detail = "; ".join(
        f"{home.name}: hit {median(home.hits_s) * 1e3:.3f} ms (x{hit:.2f}), call {median(home.calls_s) * 1e3:.2f} ms (x{call:.2f}),"
        f" first call {home.first_s * 1e3:.0f} ms"
        for home, hit, call in zip(homes, hits, calls, strict=True)
    )
    worst_hit, worst_call = max(hits), max(calls)
    return Row(
        "cost per call as ledger and cache grow",
        "flat within 20%",
        f"at most x{worst_hit:.2f} for a hit, x{worst_call:.2f} for a call",
        detail,
        worst_hit <= 1.2 and worst_call <= 1.2,
    )
