"""The guard's way with WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Message, Scope

from nbllm.service.gate import GateClosed
from nbllm.service.passage import Passage
from nbllm.service.problems import Problem, problem_response

GOES_AWAY = 1012
"""The close code "service restart": asking again, there or at another replica, helps."""


class SocketPassage(Passage):
    """One WebSocket."""

    _accepted = False
    _closed = False

    async def run(self) -> None:
        """Check it, hand it on; what the app leaves open is closed."""
        try:
            self.check()
            await self.app(self.scope, self._received, self.send)
        except asyncio.CancelledError:
            if not self.service.draining or not self._accepted:
                raise
            # Its grace is over.
            await self.send({"type": "websocket.close", "code": GOES_AWAY, "reason": GateClosed().problem.title})
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
            if not self._accepted and "route" not in self.scope and "endpoint" not in self.scope:
                await self._refuse(Problem(status=404, type="not-found", title="Not Found.", detail="There is no such WebSocket."))
                return
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
