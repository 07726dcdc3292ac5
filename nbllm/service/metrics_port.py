"""/metrics on a port of its own on the loopback, without a key: for a Prometheus, or its agent, on the same machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nbllm.errors import ConfigurationError
from nbllm.service.context import Service
from nbllm.service.heads import is_local_name
from nbllm.service.health import scrape
from nbllm.service.metrics import CONTENT_TYPE

_HEAD_BYTES = 8192
_HEAD_S = 5.0


@asynccontextmanager
async def metrics_port(service: Service) -> AsyncIterator[None]:
    """Serve it while the app runs, where the settings name a port. Raises ConfigurationError when the port is taken."""
    port = service.config.metrics_port
    if port is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(service, head))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(answer, "127.0.0.1", port, limit=_HEAD_BYTES)
    except OSError as exc:
        raise ConfigurationError(
            f"The port {port} for metrics is taken ({exc.strerror or exc}).", hint="Set another metrics_port, or 0 for a free one."
        ) from None
    service.metrics_address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def _answer(service: Service, head: bytes) -> bytes:
    """Return the whole answer to a head. The name is checked: a web page may have its own resolve to the loopback."""
    first, *lines = head.decode("latin-1").split("\r\n")
    hosts = [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip().lower() == "host"]
    if len(hosts) != 1 or not is_local_name(hosts[0]):
        return b"HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    if first.split(" ")[:2] != ["GET", "/metrics"]:
        return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    body = await scrape(service)
    given = f"HTTP/1.1 200 OK\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return given.encode() + body
