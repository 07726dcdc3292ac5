"""Who is alive in a home: every process that writes there holds a lock for as long as it lives.

It is an OS lock on `run/<token>.lock`, and the token, `<pid>-<random>`, is the process's name in shared tables: one whose lock is
free belongs to a process that ended, however it ended.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from nbllm.storage.locks import try_lock


def take(run: Path) -> tuple[str, int | None]:
    """Create and lock a new file in `run`; return its token, and its descriptor, None where locks do not work."""
    while True:
        token = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = run / f"{token}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Between open and lock another process may have taken the file for an orphan: then it is theirs to delete.
            if try_lock(fd) and path.exists():
                return token, fd
        except OSError:
            # A file system without locks (some network mounts): nobody can be told dead from alive, so nobody is called dead.
            os.close(fd)
            return token, None
        os.close(fd)


def free(run: Path, token: str, fd: int) -> None:
    """Let go of this process's own lock, and delete its file."""
    path = run / f"{token}.lock"
    # Windows cannot delete an open file and POSIX must not close before deleting, or another process could win the name.
    with suppress(OSError):
        path.unlink()
    os.close(fd)
    with suppress(OSError):
        path.unlink()


def is_free(run: Path, token: str) -> bool:
    """Whether no living process holds the token's lock. A free file is deleted; one that cannot be judged counts as held."""
    path = run / f"{token}.lock"
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        unheld = try_lock(fd)
        if unheld:
            with suppress(OSError):  # while the lock is held, so that nobody else takes the file; not possible on Windows
                path.unlink()
    except OSError:
        return False
    else:
        return unheld
    finally:
        os.close(fd)


def sweep(run: Path, *, keep: str) -> None:
    """Delete the lock files of processes that ended."""
    for path in run.glob("*.lock"):
        if path.stem != keep:
            is_free(run, path.stem)
