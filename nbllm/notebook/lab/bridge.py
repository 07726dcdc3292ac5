"""The kernel's end of the JupyterLab extension: comms in, snapshots and deltas out. Nothing happens before a front end listens.

Threads. Comm messages come on the kernel's main thread or, from newer front ends, on a subshell's, beside a running cell: the
handlers here set single values, cancel by call_id and return; they display nothing and wait for nothing. All snapshots and deltas
are sent by one thread of ours, which lives as long as somebody listens; what waits for disks runs in worker threads.

Sending from these is safe: Session.send builds its message from its arguments alone, and the kernel's IOPub socket hands it to the
IOPub thread's own queue (ipykernel.iostream.IOPubThread.schedule). It is not done through Comm.send, which answers to whatever
request the shell handled last: ipykernel 7 would then route the front end's next message to the shell, behind the running cell.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbllm.flow_context import CELLS, ONLOOKERS
from nbllm.notebook.lab.origin import Notebooks
from nbllm.outcome import Bell

if TYPE_CHECKING:
    from nbllm.client import Client
    from nbllm.notebook.lab.desk import Desk
    from nbllm.notebook.lab.listener import Listener
    from nbllm.notebook.lab.watching import Watching

_log = logging.getLogger("nbllm")
TARGET = "nbllm"
MOST_COMMS = 32
EARLY_S = 20.0
"""How long calls are looked on before a page has come: its hello is on its way while Run All makes the first calls already."""
_END_S = 2.0
_LEAST_S = 0.05
_clock_s = time.monotonic
"""A name of its own, for tests that let time pass here and nowhere else."""


_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()


def _after_fork() -> None:
    for bridge in list(_bridges):
        bridge._forget()  # noqa: SLF001 - the hook is the bridge's own; the system calls functions only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Bridge:
    """Registers the comm target of one shell, and serves those who come. client: the current one, made when it is needed."""

    def __init__(self, shell: Any, client: Callable[[], Client], version: str) -> None:
        self.notebooks = Notebooks(shell)
        self._shell = shell
        self._client = client
        self._version = version
        self._began = time.time()
        self._comms: dict[str, tuple[Any, Listener]] = {}
        self._announced: Any = None
        self._warned: set[str] = set()
        self._forget()
        _bridges.add(self)

    def _forget(self) -> None:
        """Hold nothing that lives: at birth, and in a forked child, whose comms are the parent's."""
        self._lock = threading.Lock()
        self._bell = Bell()
        self._news = False
        self._desk: Desk | None = None
        self._early: Watching | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._comms.clear()

    # ------------------------------------------------------------------ life

    def open(self) -> None:
        """Register the target and announce it. No thread, no client and no home is made."""
        from comm import create_comm

        self._shell.kernel.comm_manager.register_target(TARGET, self._opened)
        self.notebooks.watch_cells()
        # It stays open, so that a page that is reloaded finds it among the kernel's comms.
        announced = create_comm(target_name=TARGET, data={"v": 1, "type": "announce", "nbllm": self._version})
        if announced is not None:
            announced.on_close(lambda _: self._refused(announced))
            self._look_on_early()
        self._announced = announced

    def _look_on_early(self) -> None:
        """Remember the calls that begin before the first page has said hello, so that it sees them come and can stop them.

        Without a thread or a timer: the first call after EARLY_S finds that nobody came, and lets go.
        """
        from nbllm.notebook.lab.watching import Watching

        until_s = _clock_s() + EARLY_S

        def looked() -> None:
            if _clock_s() > until_s and self._lock.acquire(blocking=False):  # never a wait in a call
                try:
                    self._look_away()
                finally:
                    self._lock.release()

        early = self._early = Watching(looked, keeps_ended=False)
        ONLOOKERS.append(early)

    def _look_away(self) -> None:
        early, self._early = self._early, None
        if early is not None and early in ONLOOKERS:
            ONLOOKERS.remove(early)

    def close(self) -> None:
        """Say goodbye to everybody and leave nothing behind."""
        manager = self._shell.kernel.comm_manager
        if manager.targets.get(TARGET) == self._opened:
            manager.unregister_target(TARGET, self._opened)
        self.notebooks.leave_cells()
        with self._lock:
            self._look_away()
        CELLS.modes.clear()
        for comm in [self._announced, *(comm for comm, _ in list(self._comms.values()))]:
            if comm is not None and manager.comms.get(comm.comm_id) is comm:
                comm.close()
                manager.comms.pop(comm.comm_id, None)  # one that was refused is closed already
        self._announced = None
        self._comms.clear()
        self._ending.set()
        self._wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_S)

    # ------------------------------------------------------------------ handlers, on whatever thread the kernel uses

    def _opened(self, comm: Any, message: Any) -> None:
        """A front end has opened a comm; its data are a hello."""
        from nbllm.notebook.lab.listener import Listener

        listener = Listener(self._sender(comm), time.monotonic())
        self._make_room()
        self._comms[comm.comm_id] = (comm, listener)
        # Not on_msg: what ipykernel does around such a callback shows the figures of the running cell, and does so in this thread.
        comm.handle_msg = lambda sent: self._safely(comm, listener, sent)
        comm.on_close(lambda _: self._closed(comm))
        self._safely(comm, listener, message)

    def _make_room(self) -> None:
        """Say goodbye to those that are too many: to those that are sent nothing any more first, then to those that came first."""
        known = self._comms.copy()  # in one step: other threads open and close comms meanwhile
        oldest = sorted(known, key=lambda comm_id: known[comm_id][1].listens)
        for comm_id in oldest[: max(0, len(known) - MOST_COMMS + 1)]:
            if (gone := self._comms.pop(comm_id, None)) is not None:
                try:
                    gone[0].close()
                except Exception:  # a socket that is gone is no reason to turn away who has just come
                    _log.debug("A comm could not be closed.", exc_info=True)

    def _refused(self, comm: Any) -> None:
        """A front end without the extension has closed the announcement, as it does with all that it does not know.

        It stays among the kernel's comms all the same, for pages to come. Nothing is sent: nobody could refuse it again.
        """
        if self._announced is comm:
            self._shell.kernel.comm_manager.register_comm(comm)

    def _closed(self, comm: Any) -> None:
        self._comms.pop(comm.comm_id, None)
        self._wake()

    def _safely(self, comm: Any, listener: Listener, message: Any) -> None:
        from nbllm.notebook.lab.messages import BadMessage, to_kernel

        try:
            content = message["content"].get("data")
            try:
                said = to_kernel(content)
            except BadMessage as exc:
                self._refuse(listener, content, str(exc))
            else:
                listener.heard(in_turn=threading.current_thread() is threading.main_thread())
                self._do(comm, listener, said, str(message.get("header", {}).get("session", "")))
        except Exception:  # a front end's message must not fail in the kernel's log, nor in a cell
            _log.debug("A message of a front end could not be handled.", exc_info=True)

    def _refuse(self, listener: Listener, content: Any, reason: str) -> None:
        """Ignore what is no message of this version, with one warning a kind; a command is told."""
        if reason not in self._warned and len(self._warned) < 20:
            self._warned.add(reason)
            _log.warning("The JupyterLab extension sent %s; it is ignored. Are both of the same version?", reason)
        if isinstance(content, dict) and content.get("type") == "command" and content.get("v") == 1:
            asked = content.get("id")
            if isinstance(asked, str) and 0 < len(asked) <= 64:
                refusal = "This version of nbllm does not understand that."
                listener.say({"v": 1, "type": "result", "id": asked, "ok": False, "message": refusal, "data": None})

    def _do(self, comm: Any, listener: Listener, said: Any, session: str) -> None:
        match said["type"]:
            case "hello":
                self._hello(comm, listener, said, session)
            case "ask_snapshot":
                listener.wants_snapshot = True
            case "pace":
                listener.updates_per_s = said["updates_per_s"]
            case "command" if listener.greeted:
                self._begin().command(said, listener)
        self._wake()

    def _hello(self, comm: Any, listener: Listener, said: Any, session: str) -> None:
        listener.tag = self.notebooks.named(session, said["notebook"])
        listener.updates_per_s = said["updates_per_s"]
        for other, others in list(self._comms.values()):
            if other is not comm and others.tag == listener.tag:
                others.doubted = True
        listener.greeted = listener.wants_snapshot = True
        self._begin()

    # ------------------------------------------------------------------ the thread that sends

    def _begin(self) -> Desk:
        """Look on from now on, and have the thread run."""
        with self._lock:
            if self._desk is None:
                from nbllm.notebook.lab.desk import Desk

                self._desk = Desk(self._client, self._wake, self._version, self._began, early=self._early)
                if self._early is None:
                    ONLOOKERS.append(self._desk.watching)
                self._early = None
            if self._thread is None:
                self._ending = threading.Event()
                self._thread = threading.Thread(target=self._run, name="nbllm-lab", daemon=True)
                self._thread.start()
            return self._desk

    def _wake(self) -> None:
        """Have the thread look at what there is. In the way of every call: one test, as a rule."""
        if not self._news:
            self._news = True
            self._bell.ring()

    def _run(self) -> None:
        bell, ending, desk = self._bell, self._ending, self._desk
        assert desk is not None  # noqa: S101 - _begin makes it first
        while not ending.is_set():
            self._news = False
            listeners = [listener for _, listener in list(self._comms.values()) if listener.listens]
            if not listeners and self._ends(desk):
                return
            try:
                next_s = desk.tick(listeners)
            except Exception:
                _log.debug("The panel could not be updated.", exc_info=True)
                next_s = 1.0
            # Not more often than somebody wants to hear, however much happens; then until something does.
            now_s = time.monotonic()
            pause_s = max(_LEAST_S, min((listener.due_s - now_s for listener in listeners), default=0.0))
            if not ending.wait(pause_s) and next_s > pause_s:
                bell.wait(next_s - pause_s)
        self._ends(desk, closing=True)

    def _ends(self, desk: Desk, *, closing: bool = False) -> bool:
        """Look on no more, unless somebody has come meanwhile."""
        with self._lock:
            if not closing and any(listener.listens for _, listener in self._comms.values()):
                return False
            if desk.watching in ONLOOKERS:
                ONLOOKERS.remove(desk.watching)
            desk.close()
            if self._desk is desk:
                self._desk, self._thread = None, None
            return True

    def _sender(self, comm: Any) -> Callable[[dict[str, Any]], object]:
        kernel = self._shell.kernel

        def send(data: dict[str, Any]) -> None:
            if comm.comm_id in self._comms:
                kernel.session.send(kernel.iopub_socket, "comm_msg", {"comm_id": comm.comm_id, "data": data}, ident=comm.topic)

        return send
