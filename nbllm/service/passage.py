"""What the guard does for requests and WebSockets alike: an id, where they may come from, headers, a line in the log, numbers."""

from __future__ import annotations

import time

from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from nbllm.service.context import EXCHANGE, REQUEST_ID, Exchange, Service
from nbllm.service.failures import log_failure
from nbllm.service.gate import GateClosed
from nbllm.service.heads import MOST_HEADERS, Head, check_origin, head_of
from nbllm.service.metrics import OTHER
from nbllm.service.problems import Problem, ServiceProblem, problem_of

_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NO_STORE = (b"cache-control", b"no-store")
_PROBED = frozenset({"/health", "/ready"})
"""What answers to any name, because probes call it by an address, and while the service ends. It says nothing but how it is."""
_METRICS = "/metrics"


class Passage:
    """What requests and WebSockets have in common."""

    def __init__(self, app: ASGIApp, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.app = app
        self.service = service
        self.scope = scope
        self.receive = receive
        self._send = send
        self.status = 0
        self.head: Head = head_of(scope["headers"])
        self.exchange = scope[EXCHANGE] = Exchange(request_id=self.head.request_id, started_s=time.monotonic())
        REQUEST_ID.set(self.exchange.request_id)

    def check(self) -> None:
        """Refuse what comes from a wrong place, and everything new while the service ends."""
        service = self.service
        path = self.scope["path"]
        if len(self.scope["headers"]) > MOST_HEADERS:
            raise ServiceProblem(431, "head-too-large", f"A head may have {MOST_HEADERS} headers.", headers={"Connection": "close"})
        if path in _PROBED:
            return
        check_origin(self.head, self.scope, service.config)
        if service.draining and path != _METRICS:
            raise GateClosed

    def with_headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return an answer's headers with what each of ours has."""
        own = {name.lower() for name, _ in given}
        headers = [*given, (b"x-request-id", self.exchange.request_id.encode()), *self.exchange.headers]
        headers += [pair for pair in _SAFE_HEADERS if pair[0] not in own]
        if b"cache-control" not in own:
            headers.append(_NO_STORE)
        if self.service.draining and b"connection" not in own:
            headers.append((b"connection", b"close"))
        return headers

    def done(self, method: str) -> None:
        """Count and log."""
        seconds = time.monotonic() - self.exchange.started_s
        route = getattr(self.scope.get("route") or self._meant(), "path_format", OTHER)
        self.service.metrics.request(route, method, self.status, seconds)
        if (reason := self.exchange.noted.get("problem")) is not None:
            self.service.metrics.refused.labels(reason).inc()
        log = self.service.access_log
        if log is None:
            return
        caller = self.exchange.caller
        log.info(
            "request",
            request_id=self.exchange.request_id,
            method=method,
            route=route,
            status=self.status,
            ms=round(seconds * 1000, 2),
            key=caller.key_id if caller else None,
            **self.exchange.noted,
        )

    def _meant(self) -> object:
        """Return the route that a request was for which was refused before it came there; None where there is none."""
        scope = self.scope
        direct = self.service.endpoints.get((scope.get("method", ""), scope["path"]))
        if direct is not None:
            return direct
        routes = (*self.service.routes, *(scope["app"].routes if "app" in scope else ()))
        return next((route for route in routes if hasattr(route, "path_format") and route.matches(scope)[0] is Match.FULL), None)

    def problem(self, error: Exception) -> Problem:
        """Return what is told of an error; one that nobody expected is logged, with the id that the caller gets."""
        problem = problem_of(error)
        self.exchange.noted["problem"] = problem.type
        log_failure(self.exchange.request_id, error, problem, say_why=self.service.config.log_prompts)
        return problem
