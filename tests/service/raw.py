"""A client that says exactly what it is told to, on a socket."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any, Self

from tests.service.running import Running


@dataclass(frozen=True)
class Answer:
    """What came back. headers: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """The short name of the problem."""
        return str(self.json["type"]).rpartition(":")[2]


class Line:
    """One connection."""

    def __init__(self, app: Running, timeout_s: float = 30.0) -> None:
        self.socket = socket.create_connection((app.host, app.port), timeout=timeout_s)
        self.host = f"{app.host}:{app.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Send one request and read its answer."""
        given = {"Host": self.host, **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)
        return self.read()

    def read(self) -> Answer:
        """Read one answer, which has a Content-Length."""
        head, _, rest = self._until(b"", b"\r\n\r\n").partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(rest) < length:
            piece = self.socket.recv(65_536)
            if not piece:
                raise ConnectionError("the answer was cut")
            rest += piece
        return Answer(int(first.split(" ")[1]), headers, rest)

    def closed(self) -> bool:
        """Wait until the other side closes; False when it says something instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _until(self, data: bytes, end: bytes) -> bytes:
        while end not in data:
            piece = self.socket.recv(65_536)
            if not piece:
                raise ConnectionError(f"closed after {data[:200]!r}")
            data += piece
        return data


def ask(app: Running, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """Ask on a connection of its own."""
    with Line(app) as line:
        return line.ask(path, method, headers, body)


def post(app: Running, path: str, body: bytes, **headers: str) -> Answer:
    """Post JSON with the key."""
    given = {**app.headers, "Content-Type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}
    return ask(app, path, "POST", given, body)
