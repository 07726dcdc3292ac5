"""An app that runs for a test: under uvicorn, on the loopback, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from nbllm.service.context import Service
from nbllm.service.serving import server_for


def write_settings(folder: Path, service: str = "", top: str = 'ladder = ["sim/small"]') -> Path:
    """Write an app's settings.toml into a folder; return its path. service: lines of [service]; top: nbllm's own settings."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.toml"
    path.write_text(f"{top}\n\n[service]\n{service}\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Running:
    """Where it is, a key of it, and what stands behind it."""

    host: str
    port: int
    key: str = field(repr=False)
    service: Service
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None] = field(repr=False, default=lambda: None)
    """Begin to end it, as SIGTERM does."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The header that shows the key."""
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def running(app: FastAPI, *, tier: str = "default", plain: bool = False) -> Iterator[Running]:
    """Serve an app on a free port for a with block; a key is made for it first. plain: by uvicorn, as `uvicorn app:app` does."""
    service: Service = app.state.service
    key, _ = service.keys.make(tier)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None)) if plain else server_for(app, service)
    server.config.host, server.config.port, server.config.timeout_graceful_shutdown = "127.0.0.1", 0, 2
    loops: list[asyncio.AbstractEventLoop] = []

    def serve() -> None:
        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve()

        asyncio.run(main())

    thread = threading.Thread(target=serve, name="test-service")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The app did not start.")
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running("127.0.0.1", port, key, service, loops[0], lambda: setattr(server, "should_exit", True))
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
