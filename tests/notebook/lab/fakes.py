"""A kernel for the bridge, without processes: comms that keep what is sent, and a shell that runs no cells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from nbllm.notebook.lab.messages import to_front
from nbllm.notebook.lab.state import applied


class Events:
    """IPython's events: callbacks by name."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[Any]] = {}

    def register(self, name: str, callback: Any) -> None:
        self.callbacks.setdefault(name, []).append(callback)

    def unregister(self, name: str, callback: Any) -> None:
        self.callbacks[name].remove(callback)


class Comm:
    """One comm, and the page at its other end."""

    def __init__(self, comm_id: str) -> None:
        self.comm_id = comm_id
        self.topic = b"t"
        self.closed = False
        self.handle_msg: Callable[[Any], None] = lambda _: None
        self.state: Any = None
        self.seq = 0
        self.heard: list[Any] = []
        self.at_s: list[float] = []
        self._on_close: Callable[[Any], None] = lambda _: None

    def on_close(self, callback: Callable[[Any], None]) -> None:
        self._on_close = callback

    def close(self) -> None:
        self.closed = True

    def leave(self) -> None:
        """The page is closed and says so."""
        self._on_close({})

    def say(self, data: Any) -> None:
        self.handle_msg({"content": {"comm_id": self.comm_id, "data": data}, "header": {"session": self.comm_id}})

    def hear(self, data: Any) -> None:
        said: Any = to_front(data)
        assert said == data
        self.at_s.append(time.monotonic())
        self.heard.append(said["type"])
        if said["type"] == "snapshot":
            self.state, self.seq = said["state"], said["seq"]
        elif said["type"] == "delta" and said["seq"] == self.seq + 1:
            self.state, self.seq = applied(self.state, said["state"]), said["seq"]
        elif said["type"] == "result":
            self.heard[-1] = said

    def until(self, holds: Callable[[], object], within_s: float = 30.0, say: object = "") -> None:
        """Wait for something that the bridge's own thread does."""
        end_s, pause = time.monotonic() + within_s, threading.Event()
        while not holds():
            assert time.monotonic() < end_s, f"not within {within_s} s: {say} {str(self.state)[:600]}"
            pause.wait(0.002)


class Kernel:
    """A kernel's comm manager, session and IOPub socket in one. breaks: what sending raises."""

    def __init__(self) -> None:
        self.comm_manager = self.session = self.iopub_socket = self
        self.targets: dict[str, Any] = {}
        self.comms: dict[str, Comm] = {}
        self.breaks: Exception | None = None
        self.parent: dict[str, Any] = {}

    def register_target(self, name: str, function: Any) -> None:
        self.targets[name] = function

    def unregister_target(self, name: str, _: Any) -> None:
        del self.targets[name]

    def get_parent(self, _: str) -> dict[str, Any]:
        return self.parent

    def send(self, _: Any, kind: str, content: dict[str, Any], *, ident: bytes) -> None:
        assert (kind, ident) == ("comm_msg", b"t")
        if self.breaks is not None:
            raise self.breaks
        self.comms[content["comm_id"]].hear(content["data"])

    def page(self, comm_id: str, notebook: str | None = "a.ipynb", **changes: Any) -> Comm:
        """Open a comm from the front end, with a hello."""
        comm = self.comms[comm_id] = Comm(comm_id)
        hello = {"v": 1, "type": "hello", "front": "0", "app": "t", "notebook": notebook, "updates_per_s": 10, **changes}
        self.targets["nbllm"](comm, {"content": {"comm_id": comm_id, "data": hello}, "header": {"session": comm_id}})
        return comm


class Shell:
    """What the bridge needs of a shell."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.events = Events()
