"""Looking back over many calls: percentiles, sums, promises, and every plot from the database to a saved PNG."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.measure import Row
from nbllm import Client
from nbllm.core.ports import Filter

PLOTS = ("latency", "ttft", "cost", "cache", "tokens", "timeline")
_ROUNDS = 5


def looking_back(client: Client, rows: int, folder: Path) -> list[Row]:
    """Time each view of all calls of a client's ledger. matplotlib is imported, and has drawn once, before."""
    began = time.perf_counter()
    from nbllm.core.statistics import summarise
    from nbllm.notebook.plot_view import plot_view

    plot_view("cost", client, Filter(since=time.time() + 3600), save=str(folder / "first.png"))
    first_s = time.perf_counter() - began
    everything = Filter(since=0.0)

    def percentiles() -> None:
        summary = summarise(client.ledger.series(everything, costs=False))
        if not rows > summary.n > rows // 2 or summary.p99_s is None:
            raise RuntimeError(f"The percentiles are those of {summary.n:,} calls.")

    numbers = {
        "latency P50, P95, P99": percentiles,
        "check_slo": lambda: client.check_slo(since=0.0, p95_s=1e3, p99_s=1e3, error_rate=1.0),
        "usage by model": lambda: client.usage("model", since=0.0),
        "usage by day": lambda: client.usage("day", since=0.0),
    }
    drawn = {kind: _saving(plot_view, kind, client, everything, folder) for kind in PLOTS}
    return [
        _row(f"percentiles and sums of {rows:,} calls", numbers),
        _row(
            f"plots of {rows:,} calls, database to saved PNG",
            drawn,
            f"; not in these: matplotlib's import, first drawing {first_s:.2f} s",
        ),
    ]


def _saving(view: Callable[..., object], kind: str, client: Client, where: Filter, folder: Path) -> Callable[[], object]:
    return lambda: view(kind, client, where, save=str(folder / f"{kind}.png"))


def _row(what: str, views: dict[str, Callable[[], object]], note: str = "") -> Row:
    took_s, cpu_s = {}, {}
    for name, view in views.items():
        walls, cpus = [], []
        for _ in range(_ROUNDS):
            wall, cpu = time.perf_counter(), time.process_time()
            view()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        took_s[name], cpu_s[name] = median(walls), median(cpus)
    slowest = max(took_s, key=lambda name: took_s[name])
    detail = "; ".join(f"{name} {took_s[name]:.2f} s (CPU {cpu_s[name]:.2f})" for name in views)
    return Row(what, "1 s each", f"at most {took_s[slowest]:.2f} s ({slowest})", detail + note, took_s[slowest] <= 1.0)
