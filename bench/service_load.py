"""A load generator that costs little: HTTP/1.1 over plain asyncio, in a process of its own: what is measured is the server.

python -m bench.service_load < JSON        prints the numbers as JSON; see `load`
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import count
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Load:
    """What a run found. seconds: of the whole run; p50_s, p95_s: of one request; unsaid: refusals without Retry-After."""

    requests: int
    seconds: float
    p50_s: float
    p95_s: float
    statuses: dict[str, int]
    unsaid: int

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def load(
    port: int,
    path: str,
    *,
    callers: int,
    requests: int,
    key: str = "",
    body: dict[str, Any] | None = None,
    fresh: bool = True,
    pause_s: float = 0.0,
) -> Load:
    """Send requests from so many connections, each one after the other, and return what came back.

    body: None for GET. fresh: each request has a prompt that was never sent before. pause_s: between two of a caller.
    """
    asked = {"port": port, "path": path, "callers": callers, "requests": requests, "key": key, "body": body}
    asked |= {"fresh": fresh, "pause_s": pause_s}
    done = subprocess.run(
        [sys.executable, "-m", "bench.service_load"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return Load(**json.loads(done.stdout))


class _Caller(asyncio.Protocol):
    """One connection: sends a request, reads its answer, sends the next."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = self._run.request()
        if request is None:
            self._transport.close()  # type: ignore[attr-defined]
            return
        self._sent_s = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if at >= 0:
            if len(self._buffer) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
                return
        elif not self._buffer.endswith(b"0\r\n\r\n"):
            return
        self._run.answered(int(self._buffer[9:12]), time.perf_counter() - self._sent_s, b"\r\nretry-after:" in head)
        self._buffer = b""
        if b"\r\nconnection: close" in head:
            self._transport.close()
        elif self._run.pause_s:
            asyncio.get_running_loop().call_later(self._run.pause_s, self._next)
        else:
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        self._run.closed()


class _Run:
    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._left = asked["requests"]
        self._numbers = count()
        self._salt = time.time_ns()
        self._times: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._unsaid = 0
        self.pause_s: float = asked["pause_s"]
        lines = [f"{'GET' if asked['body'] is None else 'POST'} {asked['path']} HTTP/1.1", f"Host: 127.0.0.1:{asked['port']}"]
        lines += [f"Authorization: Bearer {asked['key']}"] if asked["key"] else []
        self._head = "\r\n".join(lines).encode()

    def request(self) -> bytes | None:
        if self._left <= 0:
            return None
        self._left -= 1
        if self._asked["body"] is None:
            return self._head + b"\r\n\r\n"
        body = json.dumps(self._asked["body"])
        if self._asked["fresh"]:
            body = body.replace("NUMBER", f"{self._salt}-{next(self._numbers)}")
        return self._head + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body.encode()

    def answered(self, status: int, seconds: float, says_when: bool) -> None:
        self._times.append(seconds)
        self._statuses[str(status)] += 1
        self._unsaid += status in {429, 503} and not says_when

    def closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    async def run(self) -> Load:
        loop, self._done, self._open = asyncio.get_running_loop(), asyncio.Event(), self._asked["callers"]
        began = time.perf_counter()
        for _ in range(self._asked["callers"]):
            await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self._asked["port"])
        await self._done.wait()
        seconds = time.perf_counter() - began
        times = self._times
        p95_s = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        return Load(len(times), seconds, median(times), p95_s, dict(self._statuses), self._unsaid)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_Run(json.load(sys.stdin)).run()))))
