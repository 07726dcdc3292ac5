"""Plays one behaviour on one connection of the fault server."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.fault_behaviours import Behaviour, stream_lines, whole_body

_GIVE_UP_S = 30.0


class Line(Protocol):
    """What a player needs of a connection."""

    transport: asyncio.Transport
    gone: asyncio.Event


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One request that was read in full. closed_at: when its connection was gone, None while it is open."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: dict[str, Any]
    raw: bytes
    at: float
    connection: int
    behaviour: Behaviour
    closed_at: float | None = None
    answered_at: float | None = None
    """When the last byte of the answer was handed to the socket."""


@dataclass(slots=True)
class Player:
    """Plays one behaviour on one connection."""

    connection: Line
    recorded: Recorded
    chunked: bool = field(default=False)

    async def play(self) -> None:
        behaviour, connection = self.recorded.behaviour, self.connection
        await self._pause(behaviour.delay_s)
        if behaviour.break_after == "request":
            await self._break()
        elif self.recorded.path.partition("?")[0].endswith("/embeddings") and behaviour.status == 200 and behaviour.body is None:
            self._send_whole(self._embeddings())
        elif behaviour.body is not None:
            self._send_whole(self._error_body())
        elif self.recorded.body.get("stream"):
            await self._stream()
        else:
            await self._whole()
        self.recorded.answered_at = time.monotonic()
        if connection.transport.is_closing():
            await connection.gone.wait()

    async def _stream(self) -> None:
        behaviour = self.recorded.behaviour
        self.chunked = True
        self._head(behaviour.content_type or "text/event-stream", None)
        if behaviour.break_after == "headers":
            await self._break()
            return
        for sent, line in enumerate(stream_lines(behaviour, self.recorded.body.get("model", ""))):
            if behaviour.break_after == "tokens" and sent == behaviour.break_tokens:
                await self._break()
                return
            if self.connection.transport.is_closing():
                return
            self._write(line)
            await self._pause(behaviour.pace_s)
        self.connection.transport.write(b"0\r\n\r\n")

    async def _whole(self) -> None:
        behaviour = self.recorded.behaviour
        body = whole_body(behaviour, self.recorded.body.get("model", ""))
        self._head(behaviour.content_type or "application/json", len(body))
        if behaviour.break_after == "headers":
            await self._break()
        elif behaviour.break_after == "tokens":
            self.connection.transport.write(body[: len(body) // 2])
            await self._break()
        elif behaviour.pace_s:
            for place in range(len(body)):
                if self.connection.transport.is_closing():
                    return
                self.connection.transport.write(body[place : place + 1])
                await self._pause(behaviour.pace_s)
        else:
            self.connection.transport.write(body)

    def _embeddings(self) -> bytes:
        texts = self.recorded.body.get("input", [])
        vectors: Any = self.recorded.behaviour.vectors
        if vectors == "base64":
            vectors = [base64.b64encode(array("f", [place, 1.0]).tobytes()).decode() for place in range(len(texts))]
        elif vectors is None:
            vectors = [[float(place), 1.0] for place in range(len(texts))]
        data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        body = {"object": "list", "model": self.recorded.body.get("model"), "data": data[::-1], "usage": {"prompt_tokens": 7}}
        return json.dumps(body).encode()

    def _error_body(self) -> bytes:
        body = self.recorded.behaviour.body or b""
        if self.recorded.behaviour.echo_key:
            body = body.replace(b"{key}", self.recorded.headers.get("authorization", "").removeprefix("Bearer ").encode())
        return body

    def _send_whole(self, body: bytes) -> None:
        self._head(self.recorded.behaviour.content_type or "application/json", len(body))
        self.connection.transport.write(body)

    def _head(self, content_type: str, length: int | None) -> None:
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        more = "".join(f"{name}: {value}\r\n" for name, value in self.recorded.behaviour.headers.items())
        status = self.recorded.behaviour.status
        self.connection.transport.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n{framing}\r\n{more}\r\n".encode("latin-1")
        )

    def _write(self, data: bytes) -> None:
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.connection.transport.write(data)

    async def _pause(self, seconds: float) -> None:
        if seconds:
            try:
                await asyncio.wait_for(self.connection.gone.wait(), seconds)
            except TimeoutError:
                return
        else:
            await asyncio.sleep(0)

    async def _break(self) -> None:
        how, transport = self.recorded.behaviour.break_how, self.connection.transport
        if how == "stall":
            await self._pause(_GIVE_UP_S)
            return
        if how == "reset":
            # What was sent before must arrive first, or the reset overtakes it.
            await asyncio.sleep(0.02)
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            if self.chunked:
                transport.write(b"0\r\n\r\n")
            transport.close()
