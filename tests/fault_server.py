"""A model server on loopback that fails on command, in plain asyncio.

    with FaultServer() as server:                       # in a thread of its own; `async with` runs it on the running loop
        server.script("m", [rate_limited("1"), ok()])   # per model; the last behaviour repeats; models without a script answer ok()
        ... send requests to server.base_url ...
        assert len(server.requests) == 2                # what was read in full, in order
        assert await server.closed_after_s(Stopwatch()) < 0.5

Behaviours are in tests/fault_behaviours.py. Times are time.monotonic().
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Self

from nbllm.engines.supervised import free_port
from tests.fault_behaviours import Behaviour, ok
from tests.fault_player import Player, Recorded
from tests.starvation import Stopwatch


class FaultServer:
    """Counts and records requests, and answers each as scripted. One instance serves one test. tls: speak https with it."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.requests: list[Recorded] = []
        self.connections: int = 0
        """All connections ever made."""
        self._scripts: dict[str, list[Behaviour]] = {}
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    # ------------------------------------------------------------------------------------------------ what tests use

    @property
    def base_url(self) -> str:
        """The address up to and including /v1."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    def script(self, model: str, behaviours: Iterable[Behaviour]) -> None:
        """Say how requests for a model are answered, one behaviour each; the last one repeats."""
        self._scripts[model] = list(behaviours)

    @property
    def open_connections(self) -> int:
        """How many connections are open now, idle ones included."""
        return len(self._open)

    def count(self, model: str | None = None) -> int:
        """How many requests were read in full, of one model or of all."""
        return sum(1 for request in self.requests if model is None or request.body.get("model") == model)

    async def closed_after_s(self, since: Stopwatch, *, request: int = -1, within_s: float = 30.0) -> float:
        """Return the seconds from `since` until the connection of a request was gone, what the machine's other work took left out.

        AssertionError after within_s.
        """
        while (closed_at := self.requests[request].closed_at) is None:
            if since.all_s > within_s:
                raise AssertionError(f"The client had not closed the connection after {within_s} s.")
            await asyncio.sleep(0.002)
        return closed_at - since.began_s - since.lost_s

    def wait_closed(self, since: Stopwatch, *, request: int = -1, within_s: float = 30.0) -> float:
        """Do the same for a test without a loop (the server runs in its thread)."""
        return asyncio.run(self.closed_after_s(since, request=request, within_s=within_s))

    async def settled(self, *, connections: int = 0, within_s: float = 30.0) -> None:
        """Wait until at most so many connections are open. AssertionError after within_s."""
        began = time.monotonic()
        while self.open_connections > connections:
            if time.monotonic() - began > within_s:
                raise AssertionError(f"{self.open_connections} connections are still open after {within_s} s.")
            await asyncio.sleep(0.002)

    def close_idle(self) -> None:
        """Close every connection that waits for a request, as servers do after a while (only with `async with`)."""
        for connection in tuple(self._open):
            connection.close_if_idle()

    # ------------------------------------------------------------------------------------------------ running

    async def __aenter__(self) -> Self:
        """Listen on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, cut what is open, and wait until nothing is left."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in tuple(self._open):
            connection.transport.abort()
        while self._open:
            await asyncio.sleep(0)
        await self._server.wait_closed()

    def __enter__(self) -> Self:
        """Listen in a thread of its own, so that a test may block."""
        started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(started),), name="fault-server", daemon=True)
        self._thread.start()
        started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread and wait for it."""
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        async with self:
            started.set()
            await self._stop.wait()

    # ------------------------------------------------------------------------------------------------ what connections use

    def record(self, connection: _Connection, path: str, headers: Mapping[str, str], raw: bytes) -> Recorded:
        """Count a request that was read in full, and say how it is answered."""
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        queue = self._scripts.get(body.get("model", ""), [])
        behaviour = (queue.pop(0) if len(queue) > 1 else queue[0]) if queue else ok()
        recorded = Recorded(
            path=path, headers=headers, body=body, raw=raw, at=time.monotonic(), connection=connection.number, behaviour=behaviour
        )
        self.requests.append(recorded)
        return recorded

    def answer(self, connection: _Connection, recorded: Recorded) -> asyncio.Task[None]:
        """Play the behaviour on the connection."""
        assert self._loop is not None
        task = self._loop.create_task(Player(connection, recorded).play())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Connection(asyncio.Protocol):
    """One TCP connection: reads requests one after another."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._current: Recorded | None = None
        self._task: asyncio.Task[None] | None = None
        self.number = 0
        self.gone = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections += 1
        self.number = self._server.connections
        self._server._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._open.discard(self)
        for recorded in self._server.requests:
            if recorded.connection == self.number and recorded.closed_at is None:
                recorded.closed_at = time.monotonic()
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer[:1].isupper():
            # No method begins so: a TLS handshake, say, that would wait for ever.
            self.transport.abort()
            return
        self._next()

    def close_if_idle(self) -> None:
        if self._task is None and not self._buffer:
            self.transport.close()

    def _next(self) -> None:
        if self._task is not None:
            return
        head, mark, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        del self._buffer[: len(head) + 4 + length]
        path = lines[0].split(" ")[1]
        self._task = self._server.answer(self, self._server.record(self, path, headers, rest[:length]))
        self._task.add_done_callback(self._answered)

    def _answered(self, _: asyncio.Task[None]) -> None:
        self._task = None
        if not self.transport.is_closing():
            self._next()


def closed_port() -> str:
    """Return a base_url on which nothing listens."""
    return f"http://127.0.0.1:{free_port()}/v1"
