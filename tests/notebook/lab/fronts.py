"""A front end for tests: it opens a comm to a real kernel as the JupyterLab extension does, and keeps the state it is told."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from queue import Empty
from typing import Any

from jupyter_client.session import Session

from nbllm.notebook.lab.messages import to_front
from nbllm.notebook.lab.state import applied

_HOUSES = " ".join(
    f"House {n} of the long road has {n + 2} windows, a door of oak and a garden with {n * 3} trees." for n in range(20)
)
STREAM = f"%%llm -m sim/large?tok_s=40 -o a --cache off --max-tokens 90\nSummarise in ten bullets. {_HOUSES}"
"""A cell that streams for about two seconds."""


class Front:
    """One notebook panel: a connection with a session of its own. Every message is checked, and applied in order."""

    def __init__(self, manager: Any, notebook: str | None, *, subshell: bool = False) -> None:
        self.notebook = notebook
        # A session of its own, as each connection of a page has; by default all clients of a manager share one.
        self.client = manager.client(session=Session(key=manager.session.key))
        self.client.start_channels(stdin=False, hb=False)
        self.client.wait_for_ready(timeout=60)
        self.subshell: str | None = None
        if subshell:
            self.client.control_channel.send(self.client.session.msg("create_subshell_request", {}))
            self.subshell = self.client.get_control_msg(timeout=20)["content"]["subshell_id"]
        self.comm_id = ""
        self.said: list[dict[str, Any]] = []
        """What the kernel sent to this comm, in order."""
        self.seen: list[dict[str, Any]] = []
        """All messages of the kernel, other comms' included."""
        self.state: Any = None
        self.tag: str | None = None
        self._seq = 0
        self.gaps = 0

    def close(self) -> None:
        """Close the page: nobody says goodbye."""
        self.client.stop_channels()

    # ------------------------------------------------------------------ saying

    def hello(self, *, updates_per_s: float = 10, **changes: Any) -> Front:
        """Open a comm and greet."""
        self.comm_id = uuid.uuid4().hex
        greeting = {"v": 1, "type": "hello", "front": "0", "app": "t", "notebook": self.notebook, "updates_per_s": updates_per_s}
        self.raw("comm_open", {"target_name": "nbllm", "data": {**greeting, **changes}})
        return self

    def say(self, data: Any) -> None:
        """Send a message as it is."""
        self.raw("comm_msg", {"data": data})

    def raw(self, kind: str, content: dict[str, Any]) -> None:
        """Send a comm message, on the subshell where there is one."""
        message = self.client.session.msg(kind, {"comm_id": self.comm_id, **content})
        if self.subshell is not None:
            message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)

    def command(self, do: str, within_s: float = 30, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        asked = uuid.uuid4().hex[:8]
        self.say({"v": 1, "type": "command", "id": asked, "do": do, **arguments})
        self.until(lambda: any(one.get("id") == asked for one in self.said), within_s)
        return next(one for one in self.said if one.get("id") == asked)

    def execute(self, code: str, cell_id: str = "cell") -> str:
        """Ask for a cell to be run, as a notebook does; return the request's id."""
        # stop_on_error would end whatever the tests ask next, as Run All does.
        content: dict[str, Any] = {
            "stop_on_error": False,
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell_id})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def run(self, code: str, cell_id: str = "cell", within_s: float = 60) -> dict[str, Any]:
        """Run a cell and return its reply."""
        return self.replied(self.execute(code, cell_id), within_s)

    def replied(self, asked: str, within_s: float = 60) -> dict[str, Any]:
        """Return the reply to a request."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            answer = self.client.get_shell_msg(timeout=within_s)
            if answer["parent_header"].get("msg_id") == asked:
                content: dict[str, Any] = answer["content"]
                return content
        raise AssertionError("The cell did not end.")

    # ------------------------------------------------------------------ hearing

    def until(self, holds: Callable[[], object], within_s: float = 30) -> float:
        """Hear until something holds; return how long it took, in seconds. AssertionError when it does not in time."""
        began_s = time.monotonic()
        while not holds():
            left_s = began_s + within_s - time.monotonic()
            if left_s <= 0:
                raise AssertionError(f"Not within {within_s} s. The last that was said: {self.said[-2:]}")
            self._hear(left_s)
        return time.monotonic() - began_s

    def hear(self, for_s: float) -> list[dict[str, Any]]:
        """Hear for some time, and return what was said in it."""
        before, end_s = len(self.said), time.monotonic() + for_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._hear(left_s)
        return self.said[before:]

    def _hear(self, at_most_s: float) -> None:
        try:
            message = self.client.get_iopub_msg(timeout=at_most_s)
        except Empty:
            return
        self.seen.append(message)
        if message["msg_type"] != "comm_msg" or message["content"]["comm_id"] != self.comm_id:
            return
        data: Any = to_front(message["content"]["data"])
        assert data == message["content"]["data"], "the kernel sends nothing that the protocol does not know"
        self.said.append(data)
        if data["type"] == "snapshot":
            self.state, self.tag, self._seq = data["state"], data["notebook"], data["seq"]
        elif data["type"] == "delta":
            if data["seq"] != self._seq + 1:
                self.gaps += 1
                self.say({"v": 1, "type": "ask_snapshot"})
            else:
                self.state = applied(self.state, data["state"])
                self._seq += 1

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a type that came to this comm."""
        return [one for one in self.said if one["type"] == kind]
