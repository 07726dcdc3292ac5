"""Guard: stands before all routes, as pure ASGI. Nothing too large, too slow, from a wrong place or unheard of gets past it.

For each request: an id, the Host and Origin it may come from, its body within limits and read whole before any route sees it, a key
before a body is read at all, headers that keep browsers from harm, one line in the log, and numbers. A client that leaves ends what
was begun for it. Who asks is decided by the routes (access.py): nothing here compares paths to let somebody in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nbllm.pipeline.stage import within
from nbllm.redaction import redact
from nbllm.service.access import identified
from nbllm.service.bodies import BodyTooLarge, check_json, check_type
from nbllm.service.context import EXCHANGE, Exchange, Service
from nbllm.service.gate import GateClosed
from nbllm.service.heads import Head, check_origin, head_of
from nbllm.service.metrics import OTHER
from nbllm.service.problems import Problem, ServiceProblem, problem_answer, problem_of, problem_response

_log = logging.getLogger("nbllm.service")
_LOOK_S = 0.2
"""How long a request runs before somebody looks whether its client is still there: most are over before."""
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NO_STORE = (b"cache-control", b"no-store")
_OPEN = frozenset({"/health", "/ready", "/metrics"})
"""What answers while the service ends, and to any name: probes call it by an address. It lets nobody in."""
_LEFT = 499
"""The status, in log and numbers, of a request whose client left before it was answered (nginx's)."""
_MOST_PROMPT = 4000
_LINGER_S = 1.0
_BREATHE_EVERY = 16


class ClientLeft(Exception):
    """Whoever asked closed the connection before the body was there."""


class Guard:
    """Wraps an app. See the module."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request or WebSocket through, or refuse it."""
        if scope["type"] == "http":
            await _Request(self._app, self._service, scope, receive, send).run()
        elif scope["type"] == "websocket":
            await _Socket(self._app, self._service, scope, receive, send).run()
        else:
            await self._app(scope, receive, send)


class _Passage:
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

    def check(self) -> None:
        """Refuse what comes from a wrong place, and everything new while the service ends."""
        service = self.service
        if self.scope["path"] in _OPEN:
            return
        check_origin(self.head, self.scope, service.config)
        if service.draining:
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
        route = getattr(self.scope.get("route"), "path_format", OTHER)
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

    def problem(self, error: Exception) -> Problem:
        """Return what is told of an error; one that nobody expected is logged, with the id that the caller gets."""
        problem = problem_of(error)
        self.exchange.noted["problem"] = problem.type
        if problem.status >= 500 and not isinstance(error, ServiceProblem):
            _log.error("Request %s failed.", self.exchange.request_id, exc_info=error)
        return problem


class _Request(_Passage):
    """One HTTP request."""

    left = False
    _body = b""
    _unread = False
    """Whether there is a body of which not all was read: the connection cannot be used again."""
    _given_away = False
    _sent = 0
    _listens = False
    _looking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Check it, read it, have it answered."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        timer: asyncio.TimerHandle | None = None
        try:
            self._unread = self.head.has_body
            self.check()
            if self._unread:
                await self._read()
            self._gone = asyncio.Event()
            timer = loop.call_later(_LOOK_S, self._look, task)
            await self._endpoint()(self.scope, self._receive_whole, self.send)
        except asyncio.CancelledError:
            if self.service.draining and not self.left:
                await self._fail(GateClosed())  # its grace is over
            elif not self.left or task is None or task.uncancel():
                raise
        except ClientLeft:
            self.left = True
        except Exception as error:
            await self._fail(error)
        finally:
            if timer is not None:
                timer.cancel()
            if self._looking is not None:
                self._looking.cancel()
            if self.left and not self.status:
                self.status = _LEFT
            self.done(self.scope["method"])

    def _endpoint(self) -> ASGIApp:
        """Return what answers: for paths that are asked most, the endpoint itself, past the router and what FastAPI puts before it.

        Nobody is let in by that: these endpoints ask who it is as their first step, as they do behind the router.
        """
        return self.service.endpoints.get((self.scope["method"], self.scope["path"]), self.app)

    # ------------------------------------------------------------------------------------------------ the body

    async def _read(self) -> None:
        """Read the body, within its limits; a caller without a key is refused before the first byte of it."""
        service, head, config = self.service, self.head, self.service.config
        identified(service, self.exchange, head.authorization)
        check_type(head.content_type)
        if head.content_length is not None and head.content_length > config.max_body_bytes:
            raise BodyTooLarge(config.max_body_bytes)
        self._body = await self._pieces(config.max_body_bytes, config.header_timeout_s, config.idle_s)
        check_json(self._body, config.max_depth)
        if config.log_prompts:
            self.exchange.noted["body"] = redact(self._body[:_MOST_PROMPT].decode("utf-8", "replace"))

    async def _pieces(self, most_bytes: int, piece_s: float, total_s: float) -> bytes:
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + total_s
        pieces: list[bytes] = []
        size = 0
        try:
            while now_s() <= end_s:
                message = await within(min(piece_s, end_s - now_s()), self._message())
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > most_bytes:
                    raise BodyTooLarge(most_bytes)
                pieces.append(piece)
                if not message.get("more_body", False):
                    self._unread = False
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except TimeoutError:
            pass
        raise ServiceProblem(408, "too-slow", "The body did not come in time.")

    async def _message(self) -> Message:
        return await self.receive()

    async def _receive_whole(self) -> Message:
        """Give the app the body in one piece, then word of the client's leaving."""
        if not self._given_away:
            body, self._body, self._given_away = self._body, b"", True
            return {"type": "http.request", "body": body, "more_body": False}
        self._listens = True
        if self._looking is None:
            self._look(None)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def _look(self, task: asyncio.Task[Any] | None) -> None:
        """Begin to wait for the client's leaving; then the task is cancelled, unless the app listens itself."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._wait_for_leaving(task or asyncio.current_task()))

    async def _wait_for_leaving(self, task: asyncio.Task[Any] | None) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self._gone.set()
        if not self._listens and task is not None:
            task.cancel()

    # ------------------------------------------------------------------------------------------------ the answer

    async def send(self, message: Message) -> None:
        """Send on, with the headers of ours."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self.with_headers(list(message.get("headers", ())))}
        await self._send(message)
        self._sent += 1
        if self._sent % _BREATHE_EVERY == 0:
            # Sending to who left, or reads as fast as it comes, waits for nothing: others, and word of the leaving, get their turn.
            await asyncio.sleep(0)

    async def _fail(self, error: Exception) -> None:
        """Answer with what went wrong; an answer that has begun can only be cut."""
        problem = self.problem(error)
        if self.status:
            self.exchange.noted["cut"] = True
            return
        response = problem_answer(self.scope["path"], problem, self.exchange.request_id)
        if not self._unread:
            await response(self.scope, self.receive, self.send)
            return
        headers = [pair for pair in response.raw_headers if pair[0] != b"connection"]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": [*headers, (b"connection", b"close")]})
        await self.send({"type": "http.response.body", "body": response.body, "more_body": True})
        await self._linger()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _linger(self) -> None:
        """Throw away what still comes, for a second at most.

        A connection that is closed over unread bytes is reset, and a client that is still sending would not see why.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return


class _Socket(_Passage):
    """One WebSocket."""

    _accepted = False
    _closed = False

    async def run(self) -> None:
        """Check it, hand it on; what the app leaves open is closed."""
        try:
            self.check()
            await self.app(self.scope, self._received, self.send)
        except Exception as error:
            await self._refuse(self.problem(error))
        finally:
            self.done("WEBSOCKET")

    async def _received(self) -> Message:
        message = await self.receive()
        if message["type"] == "websocket.receive":
            data = message.get("bytes") or message.get("text") or ""
            if len(data) > self.service.config.max_body_bytes:
                await self.send({"type": "websocket.close", "code": 1009, "reason": "The message is too large."})
                return {"type": "websocket.disconnect", "code": 1009, "reason": None}
        return message

    async def send(self, message: Message) -> None:
        """Send on, with the headers of ours where a connection begins."""
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted, self.status = True, 101
            message = {**message, "headers": self.with_headers(list(message.get("headers", ())))}
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self.with_headers(list(message.get("headers", ())))}
        elif kind == "websocket.close":
            if self._closed:
                return
            self._closed = True
            self.status = self.status or 403
        await self._send(message)

    async def _refuse(self, problem: Problem) -> None:
        """Refuse with status and reason where the server can, else close."""
        if self._accepted:
            await self.send({"type": "websocket.close", "code": 1011, "reason": problem.title[:120]})
        else:
            await deny(self.scope, self.send, problem, self.exchange.request_id)


async def deny(scope: Scope, send: Callable[[Message], Awaitable[None]], problem: Problem, request_id: str) -> None:
    """Refuse a WebSocket that was not accepted yet, as problem+json where the server can."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": problem.title[:120]})
        return
    response = problem_response(problem, request_id)
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": response.raw_headers})
    await send({"type": "websocket.http.response.body", "body": response.body, "more_body": False})
