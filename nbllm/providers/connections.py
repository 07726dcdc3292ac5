"""aiohttp's sessions as nbllm uses them: one for each loop, no cookies, no .netrc; proxies and CA of the environment."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import select
import ssl
import urllib.request
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from nbllm.errors import ConfigurationError
from nbllm.redaction import register_secret

_MOST_CONNECTIONS = 256
_READ_BYTES = 65_536
"""asyncio's own 256 KiB come from mmap and are mostly given back at once, for every read: 25 us of a call."""
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD")


class Body(aiohttp.payload.Payload):
    """A request's body that says when it is on the socket, and remembers the transport so that a cut closes it at once.

    aiohttp writes the headers together with the first bytes of the body, so `sent` is exact: it is called right after the write to
    the transport succeeded, and not when the connection failed before.
    """

    def __init__(self, value: bytes, sent: Callable[[], None]) -> None:
        super().__init__(value, content_type="application/json")
        self._size = len(value)
        self._sent = sent
        self.transport: asyncio.Transport | None = None
        self.was_sent = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text, as aiohttp's interface asks for."""
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write it all."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: Any, _content_length: int | None) -> None:
        """Write it all, unless the server has closed this connection meanwhile."""
        if _has_unread(writer.transport):
            # A server closes idle connections when it likes. Two turns of the loop read that it did, and then the write below
            # fails instead of vanishing: nothing counts as sent, and another connection may be taken.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self.transport = transport = writer.transport
        if hasattr(transport, "max_size"):
            transport.max_size = _READ_BYTES
        await writer.write(self._value, drain=False)
        self.was_sent = True
        self._sent()
        await writer.drain()


def _has_unread(transport: asyncio.Transport | None) -> bool:
    """Whether something lies unread in the kernel, a close most likely: an idle connection has nothing else to say."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or not hasattr(select, "poll"):  # not on Windows, where two turns of the loop have to do
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Sessions:
    """One ClientSession for each event loop, made when it is first needed."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._last: tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession] | None = None
        self._closed = False
        _ALL.add(self)

    def get(self) -> aiohttp.ClientSession:
        """Return the running loop's session. Raises RuntimeError after aclose()."""
        loop = asyncio.get_running_loop()
        if self._last is not None and self._last[0] is loop:
            return self._last[1]
        if self._closed:
            raise RuntimeError("The provider is closed.")
        found = self._by_loop.get(loop)
        if found is None:
            found = _new_session()
            self._by_loop[loop] = found
        self._last = (loop, found)
        return found

    async def aclose(self) -> None:
        """Close all sessions and wait until their sockets are closed."""
        self._closed = True
        self._last = None
        sessions, self._by_loop = self._by_loop, {}
        for loop, session in sessions.items():
            if loop.is_running() and loop is not asyncio.get_running_loop():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(session.close(), loop))
            else:
                await session.close()
        # The transports of plain sockets are closed by a callback that the loop runs next.
        await asyncio.sleep(0)

    def forget(self) -> list[aiohttp.ClientSession]:
        """Start fresh, without closing anything, and hand out what there was."""
        sessions = list(self._by_loop.values())
        self._by_loop = {}
        self._last = None
        return sessions


_ALL: weakref.WeakSet[Sessions] = weakref.WeakSet()
_INHERITED: list[aiohttp.ClientSession] = []


def _after_fork() -> None:
    # The child's copies share sockets and epoll with the parent: to close them, or let them be collected, would cut the parent off.
    for sessions in tuple(_ALL):
        _INHERITED.extend(sessions.forget())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        # trust_env would read .netrc, send its password beside our key, and start a thread for each request.
        trust_env=False,
    )


class Proxies:
    """The environment's proxy for an address, looked up again when its variables change. Loopback is never proxied."""

    def __init__(self) -> None:
        self._seen: tuple[str | None, ...] = ()
        self._known: dict[str, URL | None] = {}

    def for_url(self, url: URL) -> URL | None:
        """Return the proxy's address, with user and password if it has them, or None."""
        host = url.host or ""
        if is_loopback(host):
            return None
        variables = tuple(map(os.environ.get, _PROXY_VARIABLES))
        if variables != self._seen:
            self._seen = variables
            self._known = {}
        origin = f"{url.scheme}://{host}"
        if origin not in self._known:
            self._known[origin] = self._look_up(url.scheme, host)
        return self._known[origin]

    @staticmethod
    def _look_up(scheme: str, host: str) -> URL | None:
        address = urllib.request.getproxies().get(scheme)
        if not address or urllib.request.proxy_bypass(host):
            return None
        proxy = URL(address if "://" in address else f"http://{address}")
        if proxy.scheme not in {"http", "https"} or not proxy.host:
            raise ConfigurationError(
                f"The proxy that the environment names for {scheme}:// is no http proxy ({proxy.scheme}://). Nothing was sent.",
                hint=f"Set {scheme.upper()}_PROXY to an address such as http://proxy.example:3128, or NO_PROXY to {host}.",
            )
        if proxy.password:
            register_secret(proxy.password)
        return proxy


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Certificates:
    """The TLS context of the environment, made in a thread (the CA file takes milliseconds), kept until its variables change."""

    def __init__(self) -> None:
        self._seen: tuple[str | None, ...] | None = None
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the context to verify servers with. Raises ConfigurationError for a CA file that cannot be read."""
        variables = tuple(os.environ.get(name) for name in (*_CA_VARIABLES, "SSL_CERT_DIR"))
        if self._context is None or variables != self._seen:
            self._context = await asyncio.to_thread(_make_context)
            self._seen = variables
        return self._context


def _make_context() -> ssl.SSLContext:
    name = next((name for name in _CA_VARIABLES if os.environ.get(name)), None)
    path = os.environ[name] if name else None
    try:
        if path and os.path.isdir(path):  # noqa: PTH112 - requests allows a folder here, ssl wants to know which it is
            context = ssl.create_default_context(capath=path)
        elif path or os.environ.get("SSL_CERT_DIR"):
            context = ssl.create_default_context(cafile=path, capath=os.environ.get("SSL_CERT_DIR"))
        else:
            context = ssl.create_default_context()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(
            f"The certificates that {name or 'SSL_CERT_DIR'} names cannot be read ({exc}). Nothing was sent.",
            hint=f"Set {name or 'SSL_CERT_DIR'} to a readable PEM file, or remove it.",
        ) from exc
    context.set_alpn_protocols(["http/1.1"])
    return context
