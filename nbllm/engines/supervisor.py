"""A small process that starts an engine and ends it, with everything the engine started, when the kernel lets go of it.

Runs in a session of its own, so that an interrupt of the kernel reaches neither it nor the engine. Its standard input is the only
tie to the kernel: one line of JSON says what to start; a second line says to stop, and so does the end of the pipe, which the
system closes however the kernel ends. Lines of JSON on its standard output tell what happens. Uses the standard library only and
nothing of nbllm, so that it starts in milliseconds and wherever the kernel's Python does.

On Linux it is the reaper of everything below it (PR_SET_CHILD_SUBREAPER), so that a child that leaves the group or the session, or
whose parent dies, is still found. On other POSIX systems what `ps` shows below the engine and its group are ended; on Windows
taskkill ends the tree.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

LINUX = sys.platform.startswith("linux")
POSIX = os.name == "posix"
LOOK_EVERY_S = 0.05
TERM_S = 3.0
ORPHANS_S = 0.6
"""TERM_S for what an engine that died by itself left behind: why it died is told when all of it is gone, 2 s later at most."""
LAST_WORDS_S, LATE_WORDS_S = 0.3, 1.2
"""How long the log of an engine that died is waited for: where what it left behind holds the pipe open, and where nothing does."""
KILL_S = 1.5
"""With TERM_S under the 5 s within which nothing is left: a process that the system does not let go of is not waited for longer."""
LOG_BYTES = 4_000_000
"""The log is begun anew at this size; the one before is kept beside it."""
PARENT_EVERY_S = 0.5
LOG_READ_S = 60.0
"""How long the log of an engine that died is kept for a kernel that does not come to read it."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def _prctl(option: int, value: int) -> bool:
    """Set a property of this process; False where the system has no such thing."""
    if not LINUX:
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _say(event: str, **more: Any) -> None:
    with contextlib.suppress(OSError, ValueError):  # the kernel may be gone
        sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
        sys.stdout.flush()


# ---------------------------------------------------------------------- who is below whom


def _parents() -> dict[int, int]:
    """Return the parent of each process, zombies left out: from /proc, else from ps."""
    parents: dict[int, int] = {}
    if LINUX:
        for entry in os.listdir("/proc"):  # noqa: PTH208 - a scan of all processes, repeated every few ms
            if entry.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    # proc(5): the name, in brackets, may hold anything; state and parent follow the last bracket.
                    state, parent = Path("/proc", entry, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        parents[int(entry)] = int(parent)
        return parents
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False).stdout  # noqa: S607 - ps is at different places
    for line in listed.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[2].startswith("Z"):
            parents[int(words[0])] = int(words[1])
    return parents


def below(root: int) -> list[int]:
    """Return all living descendants of a process."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found, todo = [], list(children.get(root, ()))
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, ())
    return found


class Tree:
    """The engine and everything that it started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.exit_code: int | None = None

    def reap(self) -> bool:
        """Take in who has ended: the engine, and on Linux also orphans that came to this process. Whether any child is left."""
        if not POSIX:
            self.exit_code = self.process.poll()
            return self.exit_code is None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.process.pid:
                self.exit_code = self.process.returncode = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """End all of it: TERM, 3 s (less when the engine itself is dead), KILL until nothing is left."""
        if not POSIX:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(self.process.pid)], capture_output=True, check=False)  # noqa: S603,S607 - our own number
            self.process.wait()
            return
        if not self._signalled(signal.SIGTERM, TERM_S if self.exit_code is None else ORPHANS_S, again=False):
            self._signalled(signal.SIGKILL, KILL_S, again=True)

    def _signalled(self, sig: int, limit_s: float, *, again: bool) -> bool:
        """Send a signal to all, to those that come later too (again: every time), and return whether all ended in time."""
        told: set[int] = set()
        end_s = time.monotonic() + limit_s
        while True:
            children = self.reap()
            left = self.left()
            # A look at /proc takes its time: who becomes an orphan meanwhile may be seen below neither parent, old or new. On
            # Linux orphans come here, so that nobody is left when there is no child.
            if not left and not (LINUX and children):
                return True
            for pid in left:
                if again or pid not in told:
                    told.add(pid)
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, sig)
            if time.monotonic() > end_s:
                return False
            time.sleep(0.02)

    def left(self) -> list[int]:
        """Return who of it still lives."""
        left = below(os.getpid())
        if LINUX or self.exit_code is not None:
            return left
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, 0)
            if self.process.pid not in left:
                left.append(self.process.pid)
        return left


# ---------------------------------------------------------------------- the engine's words


class Log:
    """What the engine says, in a file of bounded size, secrets masked."""

    def __init__(self, path: str, secrets: list[str]) -> None:
        self._path = path
        self._secrets = [secret.encode() for secret in secrets]
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - open as long as the engine lives
        self._size = 0

    def pump(self, source: Any) -> None:
        """Copy until the last process that holds the pipe has ended. A secret may be cut in two by a read: lines are kept whole."""
        rest = b""
        while True:
            try:
                piece = os.read(source.fileno(), 65_536)
            except (OSError, ValueError):
                piece = b""
            rest += piece
            cut = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
            if not piece or len(rest) > 65_536:
                cut = len(rest)
            with contextlib.suppress(OSError, ValueError):  # a full disk: the engine goes on
                self._write(rest[:cut])
            rest = rest[cut:]
            if not piece:
                return

    def _write(self, text: bytes) -> None:
        for secret in self._secrets:
            text = text.replace(secret, b"[redacted]")
        self._size += len(text)
        if self._size > LOG_BYTES:
            self._file.close()
            os.replace(self._path, f"{self._path}.1")  # noqa: PTH105 - one name for all systems
            self._file = Path(self._path).open("ab", buffering=0)  # noqa: SIM115 - as above
            self._size = len(text)
        self._file.write(text)


# ---------------------------------------------------------------------- the process


def _start(spec: dict[str, Any]) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None) if LINUX else None

    def die_with_supervisor() -> None:
        """Between fork and exec: should the supervisor itself be killed, the system ends the engine."""
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return subprocess.Popen(  # noqa: S603 - an argument list that nbllm.engines made from allow-listed options
        spec["argv"],
        env=spec["env"],
        cwd=spec["folder"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=POSIX,
        preexec_fn=die_with_supervisor if LINUX else None,  # noqa: PLW1509 - no thread has been started yet
    )


def _wait_for_the_end(closed: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdin.readline()  # "stop", or the end of the pipe
    closed.set()


def main() -> int:
    """Start what the first line says, and end it when the pipe closes or the engine does. Returns the exit code."""
    if POSIX:
        for name in (signal.SIGINT, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
    closed = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: closed.set())
    line = sys.stdin.readline()
    if not line.strip():
        return 0  # interrupted before it said what to start
    spec = json.loads(line)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    kernel = os.getppid()
    try:
        tree = Tree(_start(spec))
    except OSError as error:
        _say("exited", code=None, problem=str(error))
        _say("ended")
        shutil.rmtree(spec["folder"], ignore_errors=True)
        return 1
    log = Log(spec["log"], spec["secrets"])
    pump = threading.Thread(target=log.pump, args=(tree.process.stdout,), daemon=True)
    pump.start()
    threading.Thread(target=_wait_for_the_end, args=(closed,), daemon=True).start()
    _say("started", pid=tree.process.pid)
    _watch(tree, closed, kernel)
    if tree.exit_code is not None:
        _last_words(pump, tree)
        _say("exited", code=tree.exit_code)
    tree.end()
    _say("ended")
    closed.wait(LOG_READ_S)  # the kernel reads why, then closes the pipe
    shutil.rmtree(spec["folder"], ignore_errors=True)
    return 0


def _last_words(pump: threading.Thread, tree: Tree) -> None:
    """Wait for what is on its way through the pipe: on a busy machine who reads it may be late."""
    pump.join(LAST_WORDS_S)
    end_s = time.monotonic() + LATE_WORDS_S - LAST_WORDS_S
    while pump.is_alive() and time.monotonic() < end_s and not tree.left():
        pump.join(LOOK_EVERY_S)


def _watch(tree: Tree, closed: threading.Event, kernel: int) -> None:
    """Return when the pipe closes, the kernel is gone or the engine has ended."""
    looked_s = time.monotonic()
    while not closed.wait(LOOK_EVERY_S):
        tree.reap()
        if tree.exit_code is not None:
            return
        # A child that the kernel forked may hold the pipe open: then only the parent's end tells.
        if POSIX and time.monotonic() - looked_s > PARENT_EVERY_S:
            looked_s = time.monotonic()
            if os.getppid() != kernel:
                return


if __name__ == "__main__":
    sys.exit(main())
