"""A process without any network, its child processes and C libraries included, where the system lets a user have that."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET of linux/sched.h."""


def cut_off() -> bool:
    """Move this process, and all that it starts from now on, into a network namespace without interfaces; False where it cannot be.

    That needs Linux, a process with one thread, and a system that lets users have namespaces (many containers do not). The user
    stays who they are, so that files stay theirs.
    """
    if sys.platform != "linux":
        return False
    uid, gid = os.getuid(), os.getgid()
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER | _NEW_NET) != 0:
            return False
    except (OSError, AttributeError):  # a libc without it
        return False
    with suppress(OSError):  # the process stays cut off; it only does not know its user's name
        for file, text in (("uid_map", f"{uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", file).write_text(text, encoding="ascii")
    return True
