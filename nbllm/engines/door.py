"""Asking a model server plainly: one request, one answer, a limit in seconds, and a look around while it waits.

On the caller's own thread and without the road: these questions are about the server, belong to no call and cost nothing.
"""

from __future__ import annotations

import http.client
import json
import selectors
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
                connection.request("GET" if content is None else "POST", path, content, headers)
                _wait(connection, end_s, tick)
                connection.sock.settimeout(max(0.05, end_s - time.monotonic()))
                response = connection.getresponse()
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


def _wait(connection: http.client.HTTPConnection, end_s: float, tick: Callable[[], object] | None) -> None:
    """Wait until something comes; TimeoutError at the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        while not selector.select(max(0.0, min(_TICK_S, end_s - time.monotonic()))):
            if tick is not None:
                tick()
            if time.monotonic() >= end_s:
                raise TimeoutError
