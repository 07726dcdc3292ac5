"""The two servers that bench/service.py measures: an app of nbllm with everything on, and a bare FastAPI + aiohttp pass-through.

python -m bench.service_app ours UPSTREAM HOME [MOST_RUNNING]      prints port and key, then serves until its stdin closes
python -m bench.service_app bare UPSTREAM
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

_SETTINGS = """
model = "b/bench"
recordings = false

[endpoints.b]
base_url = "{upstream}"
input_usd_per_mtok = 1
output_usd_per_mtok = 2

[budget]
day_usd = 100000

[service]
max_running = {running}
max_waiting = {waiting}
queue_wait_s = 5

[service.tiers.default]
requests_per_minute = 10000000
tokens_per_minute = 1000000000
streams = 1000
day_usd = 10000
"""


def main() -> None:
    kind, upstream, *rest = sys.argv[1:]
    said = os.fdopen(os.dup(1), "w", buffering=1)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # the log goes where a container's goes, and nobody reads it
    if kind == "bare":
        _bare(upstream, said)
    else:
        _ours(upstream, Path(rest[0]), int(rest[1]) if len(rest) > 1 else 64, said)


def _ours(upstream: str, home: Path, running: int, said: Any) -> None:
    from nbllm.service import create_app
    from nbllm.service.serving import server_for, spare_collector

    home.mkdir(parents=True, exist_ok=True)
    path = home / "settings.toml"
    path.write_text(
        _SETTINGS.format(upstream=upstream, running=running, waiting=running if running < 64 else 256), encoding="utf-8"
    )
    app = create_app(settings=path)
    service = app.state.service
    key, _ = service.keys.make()
    _serve(server_for(app, service, spare_collector), said, key)


def _bare(upstream: str, said: Any) -> None:
    import aiohttp
    import uvicorn

    app = FastAPI()
    session: list[aiohttp.ClientSession] = []

    def upstream_session() -> aiohttp.ClientSession:
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)))
        return session[0]

    @app.post("/v1/chat/completions")
    async def read(request: Request) -> dict[str, Any]:
        """As people write it: JSON in, JSON out."""
        async with upstream_session().post(f"{upstream}/chat/completions", json=await request.json()) as response:
            found: dict[str, Any] = await response.json()
            return found

    @app.post("/bytes")
    async def passed(request: Request) -> Response:
        """The least that can be done: bytes in, bytes out."""
        headers = {"Content-Type": "application/json"}
        async with upstream_session().post(f"{upstream}/chat/completions", data=await request.body(), headers=headers) as response:
            return Response(await response.read(), response.status, media_type="application/json")

    _serve(uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False)), said, "")


def _serve(server: Any, said: Any, key: str) -> None:
    async def serve() -> None:
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], key, file=said)
        loop = asyncio.get_running_loop()
        threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(end)), daemon=True).start()
        await running

    def end() -> None:
        server.should_exit = True

    server.config.port = 0
    if sys.platform == "win32":
        asyncio.run(serve())
        return
    import uvloop

    uvloop.run(serve())


if __name__ == "__main__":
    main()
