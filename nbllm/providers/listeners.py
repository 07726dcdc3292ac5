"""Who listens on a port of this machine. Linux says so in /proc/net/tcp; elsewhere it stays unknown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_REACHED_BY_LOOPBACK = {
    "0100007F",  # 127.0.0.1; addresses are in the byte order of the machine, words of 32 bits
    "7F000001",  # the same on a big-endian machine
    "00000000",  # 0.0.0.0
    "0" * 32,  # [::], which takes IPv4 too
    "0000000000000000FFFF00000100007F",  # [::ffff:127.0.0.1]
    "00000000000000000000FFFF7F000001",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """listens: whether anything does. mine: whether it is this user's. owner: whose it is, for people. None: unknown."""

    listens: bool | None
    mine: bool | None
    owner: str = ""


def listener_at(port: int) -> Listener:
    """Return who would answer on 127.0.0.1:port. Where several sockets share a port, all have to be this user's."""
    if not sys.platform.startswith("linux"):
        return Listener(None, None)
    try:
        uids = {uid for uid, at in _listening() if at == port}
    except (OSError, ValueError, IndexError):
        return Listener(None, mine=False, owner="an unknown user (/proc/net/tcp cannot be read)")
    if not uids:
        return Listener(listens=False, mine=None)
    others = uids - {os.getuid()}
    if others:
        return Listener(listens=True, mine=False, owner=_user(min(others)))
    return Listener(listens=True, mine=True, owner="you")


def _listening() -> Iterator[tuple[int, int]]:
    """Yield (uid, port) of each socket that listens where 127.0.0.1 reaches it (columns: proc_net_tcp of the kernel)."""
    for table in _TABLES:
        if not table.exists():
            continue
        for line in table.read_text("ascii").splitlines()[1:]:
            columns = line.split()
            address, _, port = columns[1].rpartition(":")
            if columns[3] == _LISTEN and address in _REACHED_BY_LOOPBACK:
                yield int(columns[7]), int(port, 16)


def _user(uid: int) -> str:
    if sys.platform == "win32":
        return f"user {uid}"
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
