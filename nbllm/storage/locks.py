"""One exclusive lock on one file, held by an open file descriptor and freed by the system when its process ends.

On POSIX it is flock: unlike fcntl's record locks it belongs to the open file, so probing a lock of the same process from another
descriptor is safe, and closing a descriptor that a fork duplicated does not free the parent's lock.
"""

from __future__ import annotations

import errno
import sys

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def try_lock(fd: int) -> bool:
    """Lock the file without waiting; False when somebody else holds it. Raises OSError where the file system cannot lock."""
    try:
        _lock(fd)
    except OSError as exc:
        if exc.errno in _HELD_BY_ANOTHER:
            return False
        raise
    return True
