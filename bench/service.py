"""A service under load: /v1/chat/completions with everything on, beside a bare FastAPI + aiohttp pass-through in the same run.

Upstream, servers and load generator are processes of their own. LiteLLM's proxy is not measured here: its installation needs the
extra that SECURITY.md rules out; its numbers, measured once on the machine that this was developed on, stand beside as such.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import Row
from bench.server import TOKENS
from bench.service_load import Load, load

PATH = "/v1/chat/completions"
BODY = {"model": "b/bench", "messages": [{"role": "user", "content": "Say something about NUMBER"}]}
PROXY = "LiteLLM proxy, one worker, measured once: 70/s, 14.2 ms p50, 345 MB"
_CALLERS, _CALLS, _ROUNDS = 64, 4_000, 3
_GROWTH_CALLS, _WARM_CALLS = 20_000, 2_000
_FULL_CALLERS, _FULL_CALLS = 200, 4_000


@dataclass(frozen=True)
class Server:
    """One of the two servers. key: "" where none is needed."""

    pid: int
    port: int
    key: str

    def load(self, callers: int, requests: int, **more: Any) -> Load:
        """Ask for chat completions."""
        return load(self.port, **{"path": PATH, "callers": callers, "requests": requests, "key": self.key, "body": BODY, **more})

    def cpu_s(self) -> float:
        """Return the processor time that it used so far, 0 where the system does not tell."""
        import os

        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Return its resident memory, 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6
        except OSError:
            return 0.0


@contextmanager
def _server(kind: str, *args: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.service_app", kind, *args]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port, *key = process.stdout.readline().split()
        yield Server(process.pid, int(port), key[0] if key else "")
    finally:
        process.communicate()


def service(base_url: str, home: Path) -> list[Row]:
    """Every row of the service's table but export and Redis."""
    with _server("bare", base_url) as bare, _server("ours", base_url, str(home / "service")) as ours:
        idle_mb = ours.megabytes()
        rows = [_rates(ours, bare), _alone(ours, bare), _cached(ours), _streamed(ours, base_url)]
        rows += _memory(ours, idle_mb)
    with _server("ours", base_url, str(home / "service-full"), "4") as full:
        rows.append(_full(full))
    return rows


def _rates(ours: Server, bare: Server) -> Row:
    """64 callers on each, by turns; the best round of each, because what else runs can only slow one down."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(_ROUNDS):
        for name, server, path in (("bare", bare, PATH), ("bytes", bare, "/bytes"), ("ours", ours, PATH)):
            before_s = server.cpu_s()
            found = server.load(_CALLERS, _CALLS, path=path)
            assert found.statuses == {"200": _CALLS}, found.statuses
            cpu_s = (server.cpu_s() - before_s) / _CALLS
            known = best.get(name, (0.0, cpu_s))
            best[name] = max(known[0], found.per_s), min(known[1], cpu_s)
    (rate, cpu_s), (bare_rate, bare_cpu_s), (bytes_rate, bytes_cpu_s) = best["ours"], best["bare"], best["bytes"]
    return Row(
        "service: /v1/chat/completions, 64 callers, one process",
        "1,000/s and 40% of a pass-through",
        f"{rate:,.0f}/s (CPU {cpu_s * 1e6:,.0f} us a request) = {rate / bare_rate:.0%}",
        f"bare FastAPI + aiohttp, JSON in and out, {bare_rate:,.0f}/s (CPU {bare_cpu_s * 1e6:,.0f} us), bytes passed on unread "
        f"{bytes_rate:,.0f}/s (CPU {bytes_cpu_s * 1e6:,.0f} us); {PROXY}",
        rate >= 1000 and rate / bare_rate >= 0.4,
    )


def _alone(ours: Server, bare: Server) -> Row:
    own_s = median(ours.load(1, 500).p50_s for _ in range(_ROUNDS))
    bare_s = median(bare.load(1, 500).p50_s for _ in range(_ROUNDS))
    beside = f"bare FastAPI + aiohttp {bare_s * 1e3:.2f} ms; {PROXY}"
    return Row("service: one caller", "1.5 ms p50", f"{own_s * 1e3:.2f} ms", beside, own_s <= 1.5e-3)


def _cached(ours: Server) -> Row:
    rate = max(ours.load(_CALLERS, _CALLS, fresh=False).per_s for _ in range(_ROUNDS))
    return Row("service: served from cache, 64 callers", "3,000/s", f"{rate:,.0f}/s", "", rate >= 3000)


def _streamed(ours: Server, base_url: str) -> Row:
    """What a chunk of a stream takes longer through the service than straight from upstream."""
    port = int(base_url.rpartition(":")[2].partition("/")[0])
    body = {**BODY, "stream": True}
    through_s = median(ours.load(1, 30, body=body).p50_s for _ in range(_ROUNDS))
    straight_s = median(load(port, PATH, callers=1, requests=30, body=body).p50_s for _ in range(_ROUNDS))
    extra_ms = (through_s - straight_s) / TOKENS * 1e3
    beside = f"straight from upstream {straight_s / TOKENS * 1e3:.4f} ms a chunk"
    return Row("service: a streamed chunk", "0.1 ms", f"{extra_ms:.4f} ms more", beside, extra_ms <= 0.1)


def _memory(ours: Server, idle_mb: float) -> list[Row]:
    """Resident memory at the start, and what 20,000 more requests add to a service that is warm."""
    ours.load(_CALLERS, _WARM_CALLS)
    warm_mb = ours.megabytes()
    ours.load(_CALLERS, _GROWTH_CALLS)
    growth_mb = ours.megabytes() - warm_mb
    growth = f"{growth_mb:.1f} MB (from {warm_mb:.0f} MB)"
    return [
        Row("service: memory of the process, idle", "120 MB", f"{idle_mb:.0f} MB", PROXY, idle_mb <= 120),
        Row("service: growth over 20,000 requests, once warm", "10 MB", growth, "", growth_mb < 10),
    ]


def _full(full: Server) -> Row:
    """200 callers where few may run: every answer is one of three, refusals say when to come back, /health stays quick."""
    asked = {"port": full.port, "path": "/health", "callers": 1, "requests": 100, "pause_s": 0.01, "key": "", "body": None}
    health = subprocess.Popen(
        [sys.executable, "-m", "bench.service_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert health.stdin is not None
    health.stdin.write(json.dumps({**asked, "fresh": False}))
    health.stdin.close()
    health.stdin = None
    found = full.load(_FULL_CALLERS, _FULL_CALLS)
    health_s = Load(**json.loads(health.communicate()[0])).p95_s
    said = ", ".join(f"{count} x {status}" for status, count in sorted(found.statuses.items()))
    fine = found.statuses.keys() <= {"200", "429", "503"} and not found.unsaid
    return Row(
        "service: 200 callers on a full one",
        "only 200, 429, 503 with Retry-After; /health p95 0.1 s",
        f"{said}; {found.unsaid} refusals without Retry-After; /health p95 {health_s:.3f} s",
        "",
        fine and health_s < 0.1,
    )
