"""The headers of a request that the guard looks at, and where a request may come from."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from starlette.types import Scope

from nbllm.service.configuration import ServiceSettings, is_loopback
from nbllm.service.problems import ServiceProblem

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?\Z")
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


MOST_HEADERS = 100
_random = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """Return an id of 128 bits that no other request has. A UUID asks the system for its bits, which takes ten times as long."""
    return f"{_random.getrandbits(128):032x}"


class Head(NamedTuple):
    """What counts of a request's headers. host, origin: None where there is none, "" where there are several."""

    request_id: str
    host: str | None
    origin: str | None
    authorization: str | None
    content_type: bytes | None
    content_length: int | None
    chunked: bool

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or bool(self.content_length)


def head_of(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Return what counts of ASGI headers, whose names are in lower case."""
    host = origin = authorization = None
    content_type: bytes | None = None
    length: int | None = None
    request_id = ""
    chunked = False
    for name, value in headers:
        if name == b"host":
            host = value.decode("latin-1") if host is None else ""
        elif name == b"authorization":
            authorization = value.decode("latin-1") if authorization is None else ""
        elif name == b"content-type":
            content_type = value if content_type is None else b""
        elif name == b"content-length":
            length = int(value) if value.isdigit() else None
        elif name == b"origin":
            origin = value.decode("latin-1") if origin is None else ""
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"x-request-id" and _ID.match(value):
            request_id = value.decode()
    return Head(request_id or new_id(), host, origin, authorization, content_type, length, chunked)


def check_origin(head: Head, scope: Scope, config: ServiceSettings) -> None:
    """Refuse a request that calls this service by a name that is not its own, or that a foreign web page makes."""
    host = (head.host or "").lower()
    match = _HOST.match(host)
    if match is None or not _is_ours(match[1], config.host, tuple(config.allowed_hosts), local=is_local(scope)):
        raise ServiceProblem(
            421, "wrong-host", "This service is not called that.", "Use its address, or let its settings name it in allowed_hosts."
        )
    if head.origin is None or head.origin in config.allowed_origins:
        return
    own = {"http": "http", "https": "https", "ws": "http", "wss": "https"}[scope["scheme"]]
    if head.origin.lower() != f"{own}://{host}":
        raise ServiceProblem(
            403, "wrong-origin", "Web pages of that origin may not call this service.", "See allowed_origins of its settings."
        )


@lru_cache(maxsize=1024)
def _is_ours(name: str, own: str, allowed: tuple[str, ...], *, local: bool) -> bool:
    """Whether a name is one of a service that is called `own`. local: the request came over the loopback."""
    if "*" in allowed or any(name == one or (one[:2] == "*." and name.endswith(one[1:])) for one in allowed):
        return True
    if local:
        return name in _LOCAL_NAMES or name == own.lower()
    # Others reach it by addresses and names that only its owner knows; the key keeps foreign pages out.
    return not allowed or name in _LOCAL_NAMES


def is_local_name(host: str) -> bool:
    """Whether a Host header names the loopback."""
    match = _HOST.match(host.lower())
    return match is not None and match[1] in _LOCAL_NAMES


def is_local(scope: Scope) -> bool:
    """Whether a request came over the loopback, or over a socket in the file system."""
    server = scope.get("server")
    return server is None or server[1] is None or is_loopback(str(server[0]))
