"""What engines and apps have in common: a process below this one, a list of what runs here, and a port."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from contextlib import suppress
from random import SystemRandom
from types import TracebackType
from typing import Generic, Self, TypeVar

from nbllm.engines.process import SupervisedProcess

_PORTS = range(20_000, 32_000)
"""Below the ports that systems hand out unasked (Linux from 32,768, others from 49,152): what loads for a minute before it listens
would find its port given to somebody else."""
_TRIES = 20


class Supervised:
    """Something that runs below this process and ends with it. A context manager; `stop`, the subclass's, leaves nothing behind.

    process: None for what somebody else runs.
    """

    def __init__(self, name: str, process: SupervisedProcess | None) -> None:
        self.name = name
        self._process = process
        self._stopped = False
        self._since_s = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Its own process, None for what somebody else runs."""
        return self._process.pid if self._process else None

    @property
    def uptime_s(self) -> float:
        """Seconds since it was ready."""
        return time.monotonic() - self._since_s

    def log_tail(self, lines: int = 40) -> list[str]:
        """Return the last lines of its log, secrets masked; none for what somebody else runs."""
        return self._process.log_tail(lines) if self._process else []

    def stop(self) -> None:
        """End it. Stopping twice is fine."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._stopped = True
        if self._process is not None:
            self._process.forget()


T = TypeVar("T", bound=Supervised)


class Running(Generic[T]):
    """What runs in this process, by name, in the order of the starts. For several threads; a forked child has none of it."""

    def __init__(self) -> None:
        self._by_name: dict[str, T] = {}
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def every(self) -> list[T]:
        """Return all that was not stopped."""
        with self._lock:
            return list(self._by_name.values())

    def get(self, name: str) -> T | None:
        """Return what runs under a name."""
        with self._lock:
            return self._by_name.get(name)

    def add(self, one: T) -> T:
        """Take something in; return what has its name: another one when another thread was quicker."""
        with self._lock:
            return self._by_name.setdefault(one.name, one)

    def drop(self, one: T) -> None:
        """Forget it, unless its name is another's by now."""
        with self._lock:
            if self._by_name.get(one.name) is one:
                del self._by_name[one.name]

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # one that another thread held at the fork stays locked for ever
        for one in list(self._by_name.values()):
            one.forget()
        self._by_name.clear()


def free_port(wanted: int | None = None) -> int:
    """Return a port of the loopback that nobody listens on: the wanted one, else any. Raises PortTaken."""
    if wanted is not None:
        return _bindable(wanted)
    for port in SystemRandom().sample(_PORTS, _TRIES):  # a notebook's own random numbers stay as they are
        with suppress(PortTaken):
            return _bindable(port)
    return _bindable(0)


def _bindable(port: int) -> int:
    """Return a port that was free when it was tried, 0: any. Raises PortTaken."""
    with socket.socket() as probe:
        if port and os.name == "posix":  # elsewhere this option takes a port from who listens on it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise PortTaken(f"Port {port} {why}. Nothing was started.") from None
        found: int = probe.getsockname()[1]
        return found


class PortTaken(Exception):
    """Nobody can listen on a port; its text is a sentence for people."""
