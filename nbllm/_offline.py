"""Guard against real connections in tests."""

from __future__ import annotations

import asyncio.proactor_events
import contextlib
import functools
import inspect
import ipaddress
import socket
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, TypeVar

from nbllm.core import waits

F = TypeVar("F", bound=Callable[..., Any])

_lock = Lock()
_guards: list[bool] = []
"""One entry for each active guard: whether it lets loopback through."""
_restore: list[Callable[[], None]] = []


class NetworkBlocked(RuntimeError):
    """A real connection was tried inside `offline()`. Not an OSError and no NbllmError, so that no fallback swallows it."""


def is_loopback(host: object) -> bool:
    """Whether a host name or address is this machine's own. Names other than localhost count as foreign: they are not resolved."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host is None or not isinstance(host, str):
        return host is None
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(host: object, what: str) -> None:
    if _guards and not (all(_guards) and is_loopback(host)):
        raise NetworkBlocked(
            f"{what} {host!r} was tried inside nbllm.testing.offline(). Nothing was sent. "
            "Use a FakeProvider, a sim/ model or a server on 127.0.0.1 in this test."
        )


def _check(address: object) -> None:
    # Paths of Unix sockets and the like stay on this machine; only (host, port, ...) can leave it.
    if isinstance(address, tuple) and address and isinstance(address[0], str | bytes):
        _refuse(address[0], "A connection to")
    elif _guards and not all(_guards):
        raise NetworkBlocked(
            f"A connection to {address!r} was tried inside nbllm.testing.offline(loopback=False). Nothing was sent."
        )


def _replace(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    own = vars(owner).get(name)
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))
    _restore.append((lambda: setattr(owner, name, own)) if own is not None else (lambda: delattr(owner, name)))


def _install() -> None:
    def guard_connect(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            _check(address)
            return original(self, address)

        return connect

    def guard_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
        def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
            _refuse(host, "A DNS lookup of")
            return original(host, *rest, **named)

        return getaddrinfo

    def guard_proactor(original: Callable[..., Any]) -> Callable[..., Any]:
        async def sock_connect(self: Any, sock: socket.socket, address: Any) -> Any:
            _check(address)
            return await original(self, sock, address)

        return sock_connect

    _replace(socket.socket, "connect", guard_connect)
    _replace(socket.socket, "connect_ex", guard_connect)
    _replace(socket, "getaddrinfo", guard_lookup)
    # Windows' default loop connects below the socket module.
    _replace(asyncio.proactor_events.BaseProactorEventLoop, "sock_connect", guard_proactor)


@contextlib.contextmanager
def _guarded(loopback: bool) -> Iterator[None]:
    with _lock:
        if not _guards:
            _install()
        _guards.append(loopback)
    waits.skip()
    try:
        yield
    finally:
        waits.unskip()
        with _lock:
            _guards.remove(loopback)
            if not _guards:
                while _restore:
                    _restore.pop()()


class offline:  # noqa: N801  used like contextlib's own lower-case managers
    """No connection leaves this machine, and waits that nbllm chooses take no time.

        with offline():
            reply = client.ask("Say hi", model="sim/small")

        @offline()
        def test_flow(): ...

    Works on plain and async functions, nests, and holds for the whole process, other threads included, because nbllm's requests
    run on a thread of their own. A connection or DNS lookup of a foreign host raises NetworkBlocked; `loopback=False` refuses
    127.0.0.1 and Unix sockets too. Backoff, Retry-After and the pace of `sim/` models take no time; deadlines, timeouts and
    rate limits are left as they are. Sockets opened before, by C libraries or by child processes are not seen.
    """

    def __init__(self, *, loopback: bool = True) -> None:
        self._loopback = loopback
        self._open: list[contextlib.AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        guard = _guarded(self._loopback)
        guard.__enter__()
        self._open.append(guard)

    def __exit__(self, *exc: object) -> None:
        self._open.pop().__exit__(*exc)  # type: ignore[arg-type]  # handed on as it came

    def __call__(self, function: F) -> F:
        """Return the function, guarded while it runs."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **named: Any) -> Any:
                with _guarded(self._loopback):
                    return await function(*args, **named)

            return run_async  # type: ignore[return-value]  # same call, same result

        @functools.wraps(function)
        def run(*args: Any, **named: Any) -> Any:
            with _guarded(self._loopback):
                return function(*args, **named)

        return run  # type: ignore[return-value]  # same call, same result
