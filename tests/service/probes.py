"""An app with routes that show what reaches a route, and what happens to one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket

from nbllm.service import create_app
from nbllm.service.access import Authenticated
from nbllm.service.context import service_of
from nbllm.service.streaming import ClosedStream
from tests.service.running import write_settings


class Seen:
    """What the routes saw."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.ended = threading.Event()


def probe_app(folder: Path, service: str = "", **given: Any) -> tuple[FastAPI, Seen]:
    """Return an app with /probe (its body), /slow (until cancelled), /drip (a stream without end), /broken and /ws."""
    app = create_app(settings=write_settings(folder, service), **given)
    seen = Seen()

    @app.post("/probe")
    async def probe(request: Request, caller: Authenticated) -> dict[str, Any]:
        body = await request.body()
        seen.bodies.append(body)
        return {"bytes": len(body), "key": caller.key_id, "tier": caller.tier.name}

    @app.post("/slow")
    async def slow(request: Request, caller: Authenticated) -> dict[str, str]:
        async with service_of(request).gate.enter(caller):
            seen.begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                seen.cancelled.set()
                raise
            return {}

    @app.post("/drip")
    async def drip(caller: Authenticated) -> ClosedStream:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65_536
            finally:
                seen.ended.set()

        return ClosedStream(pieces())

    @app.post("/broken")
    async def broken(caller: Authenticated) -> None:
        raise ZeroDivisionError("the secret of the flow")

    @app.websocket("/ws")
    async def echo(socket: WebSocket, caller: Authenticated) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    return app, seen
