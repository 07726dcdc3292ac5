"""Which file system holds a path: SQLite's WAL needs shared memory, which network file systems do not have."""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK_TYPES = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ncpfs",
        "davfs",
    }
)
_FUSE_LOCAL = frozenset(
    {"fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuseblk", "fuse.fuse-overlayfs", "fuse.ecryptfs", "fuse.encfs"}
)
_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def network_file_system(path: str | os.PathLike[str], mountinfo: str | None = None) -> str | None:
    """Return the type of the network file system that holds `path`, None for a local one and where it cannot be known.

    mountinfo: text in the format of proc(5), by default this process's own on Linux. Any fuse type that is not known to be
    local (sshfs, rclone, s3fs ...) counts as a network.
    """
    if mountinfo is None:
        try:
            mountinfo = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    where = os.path.realpath(path)
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        # Later mounts hide earlier ones on the same point, so an equal length wins.
        if inside and len(point) >= best:
            best, kind = len(point), after.split(" ", 1)[0]
    remote_fuse = kind.startswith("fuse.") and kind not in _FUSE_LOCAL
    return kind if kind in NETWORK_TYPES or remote_fuse else None
