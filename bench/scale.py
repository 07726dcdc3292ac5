"""How things grow: a million ledger rows, a hundred thousand cache entries."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from bench.calls import _p50_s, _prompt, client_for
from bench.measure import Row, best_of, per_call_s
from nbllm import Client


def fill_ledger(client: Client, rows: int) -> None:
    """Add closed calls with one attempt each until the ledger holds so many, by copying what one real call left."""
    path = next(client.settings.home.rglob("ledger.db"))
    con = sqlite3.connect(path)
    (have,) = con.execute("SELECT count(*) FROM calls").fetchone()
    if rows <= have:
        return
    for table, key in (("calls", "call_id"), ("attempts", "attempt_id")):
        columns = [row[1] for row in con.execute(f"PRAGMA table_info({table})")]
        source = con.execute(f"SELECT min(rowid) FROM {table}").fetchone()[0]
        picked = ", ".join(
            {
                key: f"'{key}' || (n + {have})",
                "call_id": f"'call_id' || (n + {have})",
                "started_at": "started_at - n * 0.5",
                "latency_s": "abs(random() % 4000) / 1000.0",
                "ttft_s": "abs(random() % 900) / 1000.0",
            }.get(c, c)
            for c in columns
            if c != "id"
        )
        names = ", ".join(c for c in columns if c != "id")
        con.execute(
            f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < ?)"
            f" INSERT INTO {table} ({names}) SELECT {picked} FROM {table}, s WHERE {table}.rowid = ?",
            (rows - have, source),
        )
    con.commit()
    con.close()


def growth(base_url: str, home: Path) -> list[Row]:
    """The cost of a call with 1k, 100k and 1M ledger rows and 100k cache entries; percentiles and plots of 1M calls."""
    rows: list[Row] = []
    home = home / "growth"
    measured: dict[str, tuple[float, float]] = {}
    with client_for(base_url, home) as client:
        client.ask("Say something")
        for size in (1_000, 100_000, 1_000_000):
            fill_ledger(client, size)
            measured[f"{size:,} rows"] = _cost(client)
        _fill_cache(client, 100_000)
        measured["1,000,000 rows, 100,000 entries"] = _cost(client)
        rows.append(_summary(client))
        rows.append(_plot(client))
    base_hit, base_call = measured["1,000 rows"]
    worst_hit = max(hit for hit, _ in measured.values()) / base_hit
    worst_call = max(call for _, call in measured.values()) / base_call
    detail = "; ".join(f"{name}: hit {hit * 1e3:.3f} ms, call {call * 1e3:.2f} ms" for name, (hit, call) in measured.items())
    flat = worst_hit <= 1.2 and worst_call <= 1.2
    rows.append(
        Row(
            "cost per call as ledger and cache grow",
            "flat within 20%",
            f"hit x{worst_hit:.2f}, call x{worst_call:.2f}",
            detail,
            flat,
        )
    )
    return rows


def _cost(client: Client) -> tuple[float, float]:
    client.ask("Say something")
    hit_s = best_of(lambda: per_call_s(lambda: client.ask("Say something"), 2000))
    call_s = best_of(lambda: asyncio.run(_p50_s(lambda: client.aask(_prompt()), 500)))
    return hit_s, call_s


def _fill_cache(client: Client, entries: int) -> None:
    """Store copies of one real entry under other keys."""
    from dataclasses import replace

    one = next(iter(client.store.entries()))

    async def fill() -> None:
        for i in range(entries):
            await client.store.put(replace(one, key=f"{i:064x}"))

    asyncio.run(fill())


def _summary(client: Client) -> Row:
    from nbllm.core.ports import Filter
    from nbllm.core.statistics import summarise

    began = time.perf_counter()
    series = client.ledger.series(Filter())
    summary = summarise(series)
    took_s = time.perf_counter() - began
    return Row("percentiles of 1,000,000 calls", "1 s", f"{took_s:.2f} s", f"n = {summary.n:,}", took_s <= 1.0)


def _plot(client: Client) -> Row:
    from nbllm.core.ports import Filter
    from nbllm.notebook import plots
    from nbllm.notebook.style import figure

    figure()
    began = time.perf_counter()
    series = client.ledger.series(Filter())
    figure_, axes = figure()
    plots.latency(axes, series)
    figure_.canvas.draw()
    took_s = time.perf_counter() - began
    return Row("plot of 1,000,000 calls, read and drawn", "1 s", f"{took_s:.2f} s", f"n = {len(series.latency_s):,}", took_s <= 1.0)
