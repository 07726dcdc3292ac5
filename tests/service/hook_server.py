"""A receiver of webhooks on the loopback, over TLS with a certificate of its own, and a resolver that says where names lead."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

NAME = "hooks.example.org"


@dataclass
class Receiver:
    """What came. statuses: what to answer, in turn, then 200; location: of redirects."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    context: ssl.SSLContext | None = None
    """For who connects: it trusts the certificate."""

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.seen]


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for NAME; skip the test where there is no openssl."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    try:
        subprocess.run(
            [*command, "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(cert)],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    return cert, key


@contextmanager
def receiving(cert: Path, key: Path) -> Iterator[Receiver]:
    """Receive for a with block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    receiver.context = ssl.create_default_context(cafile=str(cert))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Names(AbstractResolver):
    """A resolver with answers of its own, in turn; the last one stays. asked: for what, how often."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ResolveResult(hostname=host, host=one, port=port, family=2, proto=0, flags=0) for one in addresses]

    async def close(self) -> None:
        return None
