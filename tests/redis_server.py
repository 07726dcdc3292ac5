"""A redis-server of the tests' own, on a Unix socket: started, killed, frozen, and started anew with or without its data."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

MISSING = shutil.which("redis-server") is None


class RedisServer:
    """One redis-server in a folder of its own. url: how it is reached. append: whether its data outlive it."""

    def __init__(self, *, append: bool = False) -> None:
        # Paths of Unix sockets are short: pytest's folders are too long for them.
        self.folder = Path(tempfile.mkdtemp(prefix="nbr"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}?db=0"
        self._append = append
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        more = ["--appendonly", "yes", "--appendfsync", "always"] if self._append else ["--save", "", "--appendonly", "no"]
        where = ["--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700", "--dir", str(self.folder)]
        self._process = subprocess.Popen(
            ["redis-server", *where, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder
        )
        until_s = time.monotonic() + 30
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.RedisError:
                    assert time.monotonic() < until_s, "redis-server did not start"
                    time.sleep(0.01)
                else:
                    return

    def client(self) -> redis.Redis:
        """Return a plain client, for looking."""
        return redis.Redis.from_url(self.url)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget all data."""
        with self.client() as client:
            client.flushall()

    def close(self) -> None:
        """End it and take its folder away."""
        self.stop()
        with suppress(OSError):
            shutil.rmtree(self.folder)


@contextmanager
def running_redis(*, append: bool = False) -> Iterator[RedisServer]:
    """Run a redis-server for a with block. Skips the test, which is counted, where there is none on PATH."""
    if MISSING:
        pytest.skip("redis-server is not on PATH")
    server = RedisServer(append=append)
    try:
        yield server
    finally:
        server.close()
