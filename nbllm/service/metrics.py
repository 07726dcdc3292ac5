"""What Prometheus is told: requests, model calls, tokens, cost, cache, breakers, queue, budgets. Every set of labels is bounded.

Labels are routes (not paths), methods, statuses, tiers' names, the rungs of the app's settings and the first few that its flows
name besides; what is none of these is "other". Keys, users and texts are never labels. What requests leave to be counted is counted
some at a time, or when somebody reads: in the middle of a request it would take four times as long.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Collection
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from nbllm.core.messages import AttemptStatus, CallRecord

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter has a second series, of when it was made
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_MOST_LABELS = 500
_MOST_OTHER_RUNGS = 50
"""Models that a flow chooses are its code's, but code may take a name from a caller: a set of labels stays bounded."""
_METHODS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "WEBSOCKET"})
OTHER = "other"
_GATHERED = 64
"""How many requests, or calls, wait at most to be counted."""
_EXPECTED = (("model", AttemptStatus.DONE), ("cache", AttemptStatus.DONE), ("none", AttemptStatus.FAILED))
"""Sources and statuses of calls whose counts are there from the start."""


class Metrics:
    """The counters of one service, in a registry of their own. rungs: model ids of the settings, which may always be labels."""

    def __init__(self, rungs: Collection[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        self._rungs = frozenset(rungs)
        self._others: set[str] = set()
        self.requests = Counter("nbllm_requests", "Requests by route and status.", ("route", "method", "status"), registry=registry)
        self.request_s = Histogram(
            "nbllm_request_seconds", "From the first byte to the last.", ("route",), buckets=_SECONDS, registry=registry
        )
        self.refused = Counter("nbllm_refused", "Requests that were refused, by reason.", ("reason",), registry=registry)
        self.calls = Counter("nbllm_calls", "Calls of models.", ("rung", "source", "status"), registry=registry)
        self.call_s = Histogram("nbllm_call_seconds", "Calls of models.", ("rung",), buckets=_SECONDS, registry=registry)
        self.ttft_s = Histogram("nbllm_ttft_seconds", "Time to the first token.", ("rung",), buckets=_SECONDS, registry=registry)
        self.tokens = Counter("nbllm_tokens", "Tokens of model calls.", ("rung", "direction"), registry=registry)
        self.cost_usd = Counter("nbllm_cost_usd", "Cost of attempts, where it is known.", ("rung",), registry=registry)
        self.unpriced = Counter("nbllm_attempts_of_unknown_cost", "Attempts whose cost is unknown.", ("rung",), registry=registry)
        self.running = Gauge("nbllm_requests_running", "Requests that run now.", registry=registry)
        self.waiting = Gauge("nbllm_requests_waiting", "Requests that wait for their turn.", registry=registry)
        self.jobs = Gauge("nbllm_jobs", "Jobs that wait and run, in all processes that share them.", ("status",), registry=registry)
        self.oldest_job_s = Gauge(
            "nbllm_jobs_oldest_queued_seconds", "How long the oldest queued job has waited; 0 when none does.", registry=registry
        )
        self.breaker = Gauge("nbllm_breaker_state", "0: closed, 1: half open, 2: open, of each rung.", ("rung",), registry=registry)
        self.budget_left_usd = Gauge(
            "nbllm_budget_left_usd", "What hard budgets leave; tier:NAME: to its key with the least.", ("scope",), registry=registry
        )
        self.draining = Gauge("nbllm_draining", "1 while the service ends.", registry=registry)
        self._children: dict[tuple[Any, ...], Any] = {}
        self._bound: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests: deque[tuple[tuple[str, str, int], float]] = deque()
        self._calls: deque[CallRecord] = deque()
        self._lock = threading.Lock()  # any thread may come to count
        for rung in self._rungs:
            self._expect(rung)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Have one request that is over counted."""
        self._requests.append(((route, method if method in _METHODS else OTHER, status), seconds))
        if len(self._requests) >= _GATHERED:
            self._catch_up()

    def call(self, record: CallRecord) -> None:
        """Have one call of a model that is over, with its attempts, counted. From any thread."""
        self._calls.append(record)
        if len(self._calls) >= _GATHERED:
            self._catch_up()

    def _catch_up(self) -> None:
        """Count what waits."""
        sums: defaultdict[Counter, float] = defaultdict(float)
        with self._lock:
            while self._requests:
                kind, seconds = self._requests.popleft()
                requests, request_s = self._bound.get(kind) or self._bind(kind)
                sums[requests] += 1
                request_s.observe(seconds)
            while self._calls:
                self._count(self._calls.popleft(), sums)
            for counter, amount in sums.items():
                counter.inc(amount)

    def _bind(self, kind: tuple[str, str, int]) -> tuple[Counter, Histogram]:
        """Return the counter and the histogram of a kind of request."""
        if len(self._bound) >= _MOST_LABELS:
            kind = OTHER, OTHER, kind[2] // 100 * 100
        route, method, status = kind
        bound = self._bound[kind] = self.requests.labels(route, method, str(status)), self.request_s.labels(route)
        return bound

    def _count(self, record: CallRecord, sums: defaultdict[Counter, float]) -> None:
        """Count one call; what its counters get is added to `sums`."""
        row, children = record.call, self._children
        rung = self._rung(row.rung)
        kind = (rung, row.source, row.status)
        sums[children.get(kind) or self._child(kind, self.calls, rung, row.source or "none", str(row.status.value))] += 1
        if row.latency_s is not None and row.source == "model":
            (children.get(("s", rung)) or self._child(("s", rung), self.call_s, rung)).observe(row.latency_s)
            if row.ttft_s is not None:
                (children.get(("ttft", rung)) or self._child(("ttft", rung), self.ttft_s, rung)).observe(row.ttft_s)
        for attempt in record.attempts:
            name, usage = self._rung(attempt.rung), attempt.usage
            for way, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                sums[children.get((way, name)) or self._child((way, name), self.tokens, name, way)] += tokens or 0
            if attempt.cost_usd is not None:
                sums[children.get(("usd", name)) or self._child(("usd", name), self.cost_usd, name)] += float(attempt.cost_usd)
            else:
                sums[children.get(("?", name)) or self._child(("?", name), self.unpriced, name)] += 1

    def _expect(self, rung: str) -> None:
        """Begin a rung's counts at 0: Prometheus sees no increase in a series that is first read with its first count."""
        for source, status in _EXPECTED:
            self.calls.labels(rung, source, status.value)
        for way in ("input", "output"):
            self.tokens.labels(rung, way)
        self.call_s.labels(rung)
        self.ttft_s.labels(rung)
        self.cost_usd.labels(rung)
        self.unpriced.labels(rung)

    def _child(self, kind: tuple[Any, ...], metric: Any, *labels: str) -> Any:
        """Return a metric's child; labels() itself checks and locks each time. The labels of calls are bounded, so these are."""
        child = self._children[kind] = metric.labels(*labels)
        return child

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        self._catch_up()
        return generate_latest(self.registry)

    def _rung(self, name: str | None) -> str:
        """Return a rung as a label: those of the settings, and the first few that the flows' own code names besides."""
        if name is None:
            return OTHER
        if name not in self._others and name not in self._rungs:
            if len(self._others) >= _MOST_OTHER_RUNGS:
                return OTHER
            self._others.add(name)
        return name
