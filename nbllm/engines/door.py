"""Asking a model server plainly: one request, one answer, a limit in seconds, and a look around while it waits.

On the caller's own thread and without the road: these questions are about the server, belong to no call and cost nothing.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_MAX_BYTES = 4_000_000
_TICK_S = 0.2
_HEAD_S = 10.0


class NoAnswer(Exception):
    """Nobody listens, the connection broke, or what came is no HTTP."""


class TooLate(NoAnswer):
    """The server took the question and did not answer in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and its body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON, {} when it is none or no object."""
        try:
            said = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return said if isinstance(said, dict) else {}

    def message(self) -> str:
        """Return what the server says is wrong, in at most 300 characters."""
        said = self.json()
        error = said.get("error", said.get("message", said.get("detail", "")))
        text = error.get("message", "") if isinstance(error, Mapping) else error
        return (str(text) or self.body.decode("utf-8", "replace")).strip()[:300]


@dataclass(frozen=True, slots=True)
class Door:
    """A server. base_url: up to and including /v1."""

    base_url: str
    key: str | None = field(default=None, repr=False)

    def root(self, path: str) -> str:
        """Return a path beside /v1."""
        return urlsplit(self.base_url).path.removesuffix("/v1") + path

    def v1(self, path: str) -> str:
        """Return a path below /v1."""
        return urlsplit(self.base_url).path + path

    def ask(self, path: str, body: Any = None, *, limit_s: float, tick: Callable[[], object] | None = None) -> Answer:
        """Send one request: GET, or POST with a body as JSON. tick: called some times a second while waiting; may raise.

        Raises TooLate, NoAnswer. Proxies and redirects are not followed.
        """
        end_s = time.monotonic() + limit_s
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        with _connection(self.base_url, min(limit_s, _HEAD_S)) as connection:
            try:
                method = "GET" if content is None else "POST"
                connection.request(method, path, content, headers)
                response = http.client.HTTPResponse(_Patient(connection.sock, end_s, tick), method=method)  # type: ignore[arg-type]
                response.begin()
                return Answer(response.status, response.read(_MAX_BYTES))
            except TimeoutError:
                raise TooLate(f"no answer within {limit_s:.3g} s") from None
            except (OSError, http.client.HTTPException) as error:
                raise NoAnswer(str(error) or type(error).__name__) from None


@contextmanager
def _connection(base_url: str, connect_s: float) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(base_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=connect_s)
    try:
        yield connection
    finally:
        connection.close()


class _Patient(io.RawIOBase):
    """A socket as http.client reads it: TimeoutError at the end, however slowly it drips, and a look around while it waits."""

    def __init__(self, sock: socket.socket, end_s: float, tick: Callable[[], object] | None) -> None:
        self._sock = sock
        self._end_s = end_s
        self._tick = tick

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return it as a file, as http.client asks a socket for one."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes."""
        while True:
            left_s = self._end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._sock.settimeout(min(_TICK_S, left_s))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                if self._tick is not None:
                    self._tick()
