"""A cable between a page and a JupyterLab that can be pulled out and put back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

READ_BYTES = 65536
LOOK_S = 0.1


class Cable:
    """Passes connections on to a port of this machine. While it is out, those that there were are cut, new ones refused."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._out = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_S)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.pull()
        self._listener.close()

    def pull(self) -> None:
        """Cut what is connected, and refuse what comes."""
        self._out.set()
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _close(end)

    def plug_in(self) -> None:
        """Let connections pass again."""
        self._out.clear()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                page, _ = self._listener.accept()
            except TimeoutError:
                continue
            page.settimeout(None)
            if self._out.is_set():
                _close(page)
                continue
            server = socket.create_connection(("127.0.0.1", self._to_port))
            with self._lock:
                self._ends |= {page, server}
            for source, target in ((page, server), (server, page)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(READ_BYTES):
                target.sendall(data)
        with self._lock:
            self._ends -= {source, target}
        _close(source)
        _close(target)


def _close(end: socket.socket) -> None:
    # A shutdown wakes the thread that reads from it, which a close alone does not.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
