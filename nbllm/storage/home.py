"""NBLLM_HOME: the directory that holds what lasts, and this process in it. Who else is alive there: see run_locks."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from nbllm.errors import HomeUnusable
from nbllm.storage import run_locks
from nbllm.storage.mounts import network_file_system

_FILES = ("ledger.db", "state.db", "recordings.db", "vectors.db", "cache/cache.db")
_NAMES = frozenset({"run", "cache", "vectors", "machines", "lost+found"})
"""What a home is known by: any of these files, or no entry besides those of these names (a new volume has lost+found)."""
_ELSEWHERE = "Set NBLLM_HOME to a folder of your own on a local disk."
_LOOK_EVERY_S = 0.01
"""How often a home is looked at: a look is a system call, which costs a hit as much as its key does."""
_LOOK_EVERY_NETWORK_S = 1.0
"""The same on a network file system, where each look may wait for the network."""


class Tenant(Protocol):
    """What keeps a file of a home open."""

    def begin_anew(self) -> None:
        """Let go of it, for the folder is gone, and open the one in the new folder."""


class Home:
    """One NBLLM_HOME as this process uses it. Nothing is touched before `prepare` (or what needs it) is called.

    data: where the files are; on a network file system a subfolder of this machine, so that no two machines share a file.
    network: type of that network file system, None for a local disk. warning: what the user should know, None for nothing;
    on_warning is told it once.
    """

    def __init__(self, path: str | os.PathLike[str], *, on_warning: Callable[[str], object] | None = None) -> None:
        self.path = Path(path).expanduser()
        self.data = self.path
        self.network: str | None = None
        self.warning: str | None = None
        self._on_warning = on_warning
        self._guard = threading.Lock()
        self._anew = threading.Lock()
        self._prepared = False
        self._token: str | None = None
        self._lock_fd: int | None = None
        self._mark = ""
        """What is there for as long as the folder is: our lock, before that the folder of locks."""
        self._lost = False
        self._look_at_s = 0.0
        self.open_calls: set[str] = set()
        """Calls of this process that are under way, by their ids: where there are several, they write together."""
        self.tenants: weakref.WeakSet[Tenant] = weakref.WeakSet()
        """Who is told when the folder is another one than before."""
        _homes.add(self)

    def prepare(self) -> Path:
        """Make the directory fit for use, once, and return where the files are. Raises HomeUnusable, saying why."""
        if not self._prepared:
            with self._guard:
                if not self._prepared:
                    self._prepare()
                    self._prepared = True
                    if self.warning and self._on_warning is not None:
                        self._on_warning(self.warning)
        return self.data

    def _prepare(self) -> None:
        try:
            _refuse_folder_of_something_else(self.path)
            own_directory(self.path)
            self.network = network_file_system(self.path)
            if self.network:
                self.data = self.path / "machines" / _machine_name()
                own_directory(self.path / "machines")
                own_directory(self.data)
                self.warning = (
                    f"{self.path} is on a network file system ({self.network}): nbllm writes more slowly there and shares "
                    f"nothing with other machines. {_ELSEWHERE}"
                )
            own_directory(self.data / "run")
            self._mark = str(self.data / "run")
        except OSError as exc:
            raise _unusable(self.path, exc) from exc

    @property
    def token(self) -> str:
        """This process's name in shared tables; its lock is taken on first use and held until `close`. Raises HomeUnusable."""
        while (token := self._token) is None:
            run = self.prepare() / "run"
            with self._guard:
                if self._token is None and self._prepared:  # else another thread is making a folder anew that is gone
                    try:
                        self._token, self._lock_fd = run_locks.take(run)
                        self._mark = str(run / f"{self._token}.lock")
                        run_locks.sweep(run, keep=self._token)
                    except OSError as exc:
                        raise _unusable(self.path, exc) from exc
        return token

    @property
    def alive(self) -> bool:
        """Whether this process holds its run lock just now, so that others know that it lives."""
        return self._lock_fd is not None

    def is_crowded(self) -> bool:
        """Whether several calls are under way."""
        return len(self.open_calls) > 1

    def is_gone(self) -> bool:
        """Whether the folder that was made ready is no longer there: deleted, moved, or deleted and made anew by somebody else.

        It is known by our own lock file, which nobody else deletes while we live. Looked at every 10 ms at most while it is there;
        once one thread found it gone, so does every other until it is made anew, and none writes into files that nobody will read.
        """
        if not self._prepared:
            return self._lost
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return False
        gone = self._has_gone()
        if not gone:
            self._look_at_s = now_s + (_LOOK_EVERY_NETWORK_S if self.network else _LOOK_EVERY_S)
        return gone

    def _has_gone(self) -> bool:
        """Look now."""
        if not self._prepared:
            return self._lost
        mark = self._mark
        try:
            os.stat(mark)  # noqa: PTH116 - a Path costs more than the question
        except (FileNotFoundError, NotADirectoryError):
            return mark == self._mark  # else it was let go of meanwhile
        except OSError:
            return False  # whatever it is, the files' own errors say it better
        return False

    def begin_anew(self) -> bool:
        """Make a folder that is gone anew, with a new lock; False when another thread just did. Raises HomeUnusable."""
        with self._anew:
            if not self._has_gone():
                return False
            with self._guard:
                self._let_go()
                self._prepared, self._lost = False, True
            self.prepare()
            self._lost = False
            for tenant in list(self.tenants):
                tenant.begin_anew()
            return True

    def dead(self, tokens: Iterable[str]) -> set[str]:
        """Return those tokens whose process has ended."""
        run = self.prepare() / "run"
        return {token for token in tokens if token != self._token and run_locks.is_free(run, token)}

    def close(self) -> None:
        """Free this process's lock. A later use takes a new one, under a new token."""
        with self._guard:
            self._let_go()

    def _let_go(self) -> None:
        token, fd, self._token, self._lock_fd = self._token, self._lock_fd, None, None
        self._mark = str(self.data / "run")
        if token is not None and fd is not None:
            run_locks.free(self.data / "run", token, fd)

    def _after_fork(self) -> None:
        """In a forked child: the lock and the token are the parent's."""
        self._guard = threading.Lock()
        self._anew = threading.Lock()
        fd, self._token, self._lock_fd = self._lock_fd, None, None
        self._mark = str(self.data / "run")
        if fd is not None:
            os.close(fd)


_homes: weakref.WeakSet[Home] = weakref.WeakSet()


def _after_fork() -> None:
    for home in list(_homes):
        home._after_fork()  # noqa: SLF001 - the hook belongs to the class; it is outside only because the system calls it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _machine_name() -> str:
    name = "".join(char if char.isalnum() or char in "-_." else "_" for char in socket.gethostname())
    return name.lstrip(".")[:80] or "unnamed"


def _refuse_folder_of_something_else(path: Path) -> None:
    """Raise HomeUnusable for a folder that others may enter and that holds something, but nothing of ours.

    Making it private would shut out those who use what is in it: a project folder, say, that was named by mistake. An empty folder
    and one that is private already are taken as they are.
    """
    if os.name != "posix" or path.is_symlink() or not path.is_dir() or not path.stat().st_mode & 0o077:
        return
    names = {entry.name for entry in path.iterdir()}
    if names - _NAMES and not any((path / name).exists() for name in _FILES):
        raise HomeUnusable(
            f"{path} holds other things ({min(names - _NAMES)!r}, say) and is open to others; a home is private (mode 0700), and "
            "making this folder private would shut others out of it. Nothing was changed.",
            hint=f"Name a subfolder instead, such as {path / 'nbllm'}; it is made by the first call.",
        )


def own_directory(path: Path) -> None:
    """Make `path` a directory of this user with mode 0700. Raises HomeUnusable, or OSError where the system refuses."""
    if path.is_symlink():
        raise HomeUnusable(f"{path} is a symbolic link; nbllm does not follow links to what it keeps.", hint=_ELSEWHERE)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise HomeUnusable(f"{path} is not a directory.", hint=_ELSEWHERE)
    if hasattr(os, "getuid") and info.st_uid != os.getuid():
        raise HomeUnusable(f"{path} belongs to another user (uid {info.st_uid}).", hint=_ELSEWHERE)
    if os.name == "posix" and info.st_mode & 0o077:
        path.chmod(0o700)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _unusable(path: Path, exc: OSError) -> HomeUnusable:
    why = {
        errno.EACCES: "cannot be written",
        errno.EPERM: "cannot be written",
        errno.EROFS: "is on a read-only disk",
        errno.ENOSPC: "is on a full disk",
        getattr(errno, "EDQUOT", -1): "is over its quota",  # Windows has none
        errno.ENOTDIR: "lies below something that is not a directory",
        errno.EEXIST: "lies below something that is not a directory",
    }.get(exc.errno or 0, f"cannot be used ({exc.strerror or type(exc).__name__})")
    return HomeUnusable(f"NBLLM_HOME {path} {why}.", hint=_ELSEWHERE)
