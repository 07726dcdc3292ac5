"""Guard: stands before all routes, as pure ASGI. Nothing too large, too slow, from a wrong place or unheard of gets past it.

For each request: an id, the Host and Origin it may come from, its body within limits and read whole before any route sees it, a key
before a body is read at all, headers that keep browsers from harm, one line in the log, and numbers. A client that leaves ends what
was begun for it. Who asks is decided by the routes (access.py): nothing here compares paths to let somebody in.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nbllm.pipeline.stage import within
from nbllm.redaction import redact
from nbllm.service.access import identified
from nbllm.service.bodies import BodyTooLarge, check_json, check_type
from nbllm.service.context import Service
from nbllm.service.gate import GateClosed
from nbllm.service.guard_socket import SocketPassage
from nbllm.service.passage import Passage
from nbllm.service.problems import ServiceProblem, problem_answer

_LOOK_S = 0.2
"""How long a request runs before somebody looks whether its client is still there: most are over before."""
_LEFT = 499
"""The status, in log and numbers, of a request whose client left before it was answered (nginx's)."""
_MOST_PROMPT = 4000
_LINGER_S = 1.0
_LINGER_BYTES = 16_000_000
_BREATHE_EVERY = 16


class ClientLeft(Exception):
    """Whoever asked closed the connection before the body was there."""


class Guard:
    """Wraps an app. See the module."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self.endpoints = service.endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request or WebSocket through, or refuse it."""
        if scope["type"] == "http":
            await _Request(self._app, self._service, scope, receive, send).run()
        elif scope["type"] == "websocket":
            await SocketPassage(self._app, self._service, scope, receive, send).run()
        else:
            await self._app(scope, receive, send)


class _Request(Passage):
    """One HTTP request."""

    left = False
    _body = b""
    _unread = False
    """Whether there is a body of which not all was read: the connection cannot be used again."""
    _given_away = False
    _sent = 0
    _sending_since_s: float | None = None
    """Since when a piece waits to be taken by the server, which has as much unread as it holds."""
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
        """Wait until the client leaves, or leaves its answer unread: then what was made for it is free for others.

        `nbllm serve` cuts such a connection itself; another server may not.
        """
        idle_s = self.service.config.idle_s
        leaving = asyncio.ensure_future(self._leaving())
        try:
            while not leaving.done():
                await asyncio.wait([leaving], timeout=idle_s / 4)
                if self._sending_since_s is not None and time.monotonic() - self._sending_since_s > idle_s:
                    break
        finally:
            leaving.cancel()
        self.left = True
        self._gone.set()
        if not self._listens and task is not None:
            task.cancel()

    async def _leaving(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    # ------------------------------------------------------------------------------------------------ the answer

    async def send(self, message: Message) -> None:
        """Send on, with the headers of ours."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self.with_headers(list(message.get("headers", ())))}
        self._sending_since_s = time.monotonic()
        await self._send(message)
        self._sending_since_s = None
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
        """Throw away what still comes, for a second and 16 MB at most.

        A connection that is closed over unread bytes is reset, and a client that is still sending would not see why.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                left_bytes = _LINGER_BYTES
                while left_bytes > 0:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left_bytes -= len(message.get("body", b""))
