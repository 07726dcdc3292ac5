"""An app that runs as several processes: replicas under `nbllm serve`, Celery workers, one Redis, one model server that counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from nbllm.engines.supervised import free_port
from nbllm.service.keys import open_keys
from tests.fault_server import FaultServer
from tests.redis_server import RedisServer, running_redis

ROOT = Path(__file__).parents[2]
START_S = 30.0
_APP = """
from pathlib import Path

from nbllm.service import create_app

import flows

app = create_app(flows=[flows.triage, flows.note], settings=Path(__file__).with_name("settings.toml"))
"""
_FLOWS = """
import logging
import os
import sys
import time

from nbllm import ask, flow


@flow
def triage(ticket: str) -> str:
    return ask(f"Sort: {ticket}", max_tokens=256).text


@flow
def note(text: str, seconds: float = 0.0) -> str:
    with open(os.environ["RUNS"], "a") as runs:
        runs.write(text + "\\n")
    print("PRIVATE", text)
    print("PRIVATE", text, file=sys.stderr)
    logging.getLogger("flows").warning("PRIVATE %s", text)
    time.sleep(seconds)
    return text
"""
_SETTINGS = """
ladder = ["lab/m"]
retries = 0

[endpoints.lab]
base_url = "{base_url}"
input_usd_per_mtok = 0
output_usd_per_mtok = 1000

[service]
keys_file = "keys.json"
max_running = 256
grace_s = 3

[service.tiers.default]
requests_per_minute = 1000000

[service.tiers.poor]
day_usd = "0.6"
"""


@dataclass
class Cluster:
    """What runs. `kill`, `stop` and `worker` may be used in mid-test."""

    folder: Path
    redis: RedisServer
    upstream: FaultServer
    key: str = field(repr=False)
    poor_key: str = field(repr=False)
    """Of a tier whose day is worth 0.60 USD."""
    other_key: str = field(repr=False)
    urls: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def runs(self) -> list[str]:
        """What the flow `note` wrote, one entry a run."""
        path = self.folder / "runs"
        return path.read_text().split() if path.exists() else []

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("NBLLM_")} | {
            "PYTHONPATH": str(ROOT),
            "NBLLM_HOME": str(self.folder / f"home-{name}"),
            "REDIS_URL": self.redis.url,
            "RUNS": str(self.folder / "runs"),
            "NBLLM_SIM_SPEED": "0",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=self.folder, env=environ, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def replica(self) -> str:
        """Start one more replica; return its address. `wait` for it."""
        port = free_port()
        self._spawn(f"replica{len(self.urls)}", "-m", "nbllm.cli", "serve", ".", "--port", str(port))
        self.urls.append(f"http://127.0.0.1:{port}")
        return self.urls[-1]

    def worker(self, *more: str) -> subprocess.Popen[bytes]:
        """Start one more Celery worker."""
        name = f"worker{len(self.processes)}"
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING", "-n", f"{name}@here")
        return self._spawn(name, "-m", "celery", "--app", "nbllm.service.worker", "worker", *quiet, *more)

    def children(self, process: subprocess.Popen[bytes]) -> list[int]:
        """The ids of a process's children."""
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill -9 a process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.folder.glob("*.log"))
        )

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)


@dataclass(frozen=True)
class Answer:
    """What a replica answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as plain values."""
        return json.loads(self.body)


class Caller:
    """Who asks replicas; a context manager."""

    def __init__(self, cluster: Cluster, key: str | None = None) -> None:
        self._cluster = cluster
        self._headers = {"Authorization": f"Bearer {key or cluster.key}"}

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers=self._headers, timeout=aiohttp.ClientTimeout(total=60), connector=aiohttp.TCPConnector(limit=0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def post(self, path: str, body: Any, *, replica: int = 0, **headers: str) -> Answer:
        """POST JSON; names of headers are written with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._answer("POST", path, replica, json=body, headers=sent)

    async def get(self, path: str, *, replica: int = 0) -> Answer:
        """GET."""
        return await self._answer("GET", path, replica)

    async def _answer(self, method: str, path: str, replica: int, **more: Any) -> Answer:
        async with self._http.request(method, self._cluster.urls[replica] + path, **more) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())


@contextmanager
def running_cluster(folder: Path, *, replicas: int = 2, workers: int = 1) -> Iterator[Cluster]:
    """Run an app's processes for a with block. Skips the test where there is no redis-server."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs").touch()
    with running_redis(append=True) as redis, FaultServer() as upstream:
        (folder / "app.py").write_text(_APP)
        (folder / "flows.py").write_text(_FLOWS)
        (folder / "settings.toml").write_text(_SETTINGS.format(base_url=upstream.base_url))
        keys = open_keys(folder, str(folder / "keys.json"), {})
        cluster = Cluster(folder, redis, upstream, *(keys.make(tier)[0] for tier in ("default", "poor", "default")))
        try:
            for _ in range(replicas):
                cluster.replica()
            for _ in range(workers):
                cluster.worker("-c", "2")
            for url in cluster.urls:
                until_ready(cluster, url)
            yield cluster
        finally:
            cluster.close()


def until_ready(cluster: Cluster, url: str) -> None:
    """Wait until a replica says that it can work."""
    give_up_s = time.monotonic() + START_S
    address = urlsplit(url)
    while True:
        asking = HTTPConnection(address.hostname or "", address.port, timeout=30)
        with closing(asking), suppress(OSError):
            asking.request("GET", "/ready")
            if asking.getresponse().status == 200:
                return
        assert time.monotonic() < give_up_s, f"{url} is not ready.\n{cluster.logs()}"
        time.sleep(0.1)
