"""uvicorn's protocols with what they lack against slow and hostile clients: times and sizes of heads, unread answers, connections.

A head that does not come in time, or is too large, ends its connection; so does a client that leaves its answer unread, and what
comes when there are too many connections. None of it costs a request anything: timers run only while something is awaited.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from nbllm.service.configuration import ServiceSettings
from nbllm.service.heads import MOST_HEADERS
from nbllm.service.joined import Joined
from nbllm.service.problems import TYPE_PREFIX

MOST_HEAD_BYTES = 32_768


class _HeadTooLarge(Exception):
    """Ends the parsing of a head."""


class _Stall:
    """Cuts a connection whose other side does not read. Used by both protocols: pause, resume, forget."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Cut it unless it is read within the time."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, transport.abort)

    def end(self) -> None:
        """It is read again, or gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits. `settings` is set by protocols_for."""

    settings: ServiceSettings

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._stall = _Stall(self.settings.idle_s)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._head_count = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        """Begin, unless there are too many already."""
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]  # it stands for one
        if len(self.connections) > self.settings.max_connections:
            self._refuse(503, "connections", "There are too many connections.", retry_after_s=2)
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of timers."""
        self._head_came()
        self._stall.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; what is no whole head yet has its time."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # it is a WebSocket's now
            return
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.settings.header_timeout_s, self._too_slow)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            if self._head_bytes:
                self._refuse(408, "too-slow", "The head of the request did not come in time.")
            else:
                self.transport.close()

    # ------------------------------------------------------------------------------------------------ the parser's calls

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._head_bytes = self._head_count = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the path."""
        self._head_bytes += len(url)
        if self._head_bytes > MOST_HEAD_BYTES:
            raise _HeadTooLarge
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._head_count += 1
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MOST_HEAD_BYTES or self._head_count > MOST_HEADERS:
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_came()
        super().on_headers_complete()

    # ------------------------------------------------------------------------------------------------ refusals

    def send_400_response(self, msg: str) -> None:
        """Say why a head was not taken (uvicorn's name for it)."""
        if self._head_bytes > MOST_HEAD_BYTES or self._head_count > MOST_HEADERS:
            self._refuse(431, "head-too-large", f"A head may have {MOST_HEAD_BYTES:,} bytes and {MOST_HEADERS} headers.")
        else:
            self._refuse(400, "malformed-request", msg)

    def _refuse(self, status: int, kind: str, title: str, *, retry_after_s: int | None = None) -> None:
        """Answer without the app, and close. An answer that is under way is cut instead."""
        self._head_came()
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = json.dumps({"type": TYPE_PREFIX + kind, "title": title, "status": status}).encode()
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/problem+json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        if retry_after_s is not None:
            head.append(f"retry-after: {retry_after_s}")
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()
        self._cut_if_unread()

    # ------------------------------------------------------------------------------------------------ answers that nobody reads

    def pause_writing(self) -> None:
        """Nobody reads: not for ever."""
        super().pause_writing()
        self._stall.begin(self.transport)

    def resume_writing(self) -> None:
        """It is read again."""
        self._stall.end()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """A small rest that is never read keeps a closed connection open: cut it, too."""
        super().on_response_complete()
        self._head_bytes = 0
        self._cut_if_unread()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._cut_if_unread()

    def _cut_if_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self._stall.begin(self.transport)


class SocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets whose other side must read. `settings` is set by protocols_for."""

    settings: ServiceSettings

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._stall = _Stall(self.settings.idle_s)

    def shutdown(self) -> None:
        """The server is about to end: what runs may finish within the grace, and the app says goodbye (uvicorn closes at once)."""
        if self.close_sent or not self.handshake_initiated:
            super().shutdown()

    async def send(self, message: Any) -> None:
        """Send on. A refusal that was sent ends the handshake: uvicorn forgets to say so, and logs an error for each."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer."""
        self._stall.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Nobody reads: not for ever."""
        super().pause_writing()
        self._stall.begin(self.transport)

    def resume_writing(self) -> None:
        """It is read again."""
        self._stall.end()
        super().resume_writing()


def protocols_for(settings: ServiceSettings) -> tuple[type[HttpProtocol], type[SocketProtocol]]:
    """Return the protocols with the limits of these settings."""
    return type("Http", (HttpProtocol,), {"settings": settings}), type("Socket", (SocketProtocol,), {"settings": settings})
