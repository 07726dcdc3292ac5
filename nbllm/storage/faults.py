"""What SQLite's errors mean to nbllm."""

from __future__ import annotations

import sqlite3
from enum import Enum
from pathlib import Path

from nbllm.errors import StorageError


class Fault(Enum):
    """Kinds of trouble with a database file."""

    BUSY = "busy"
    DAMAGED = "damaged"
    FULL = "full"
    READ_ONLY = "read-only"
    IO = "io"
    OTHER = "other"


_CODES = {
    5: Fault.BUSY,  # SQLITE_BUSY
    6: Fault.BUSY,  # SQLITE_LOCKED
    11: Fault.DAMAGED,  # SQLITE_CORRUPT
    26: Fault.DAMAGED,  # SQLITE_NOTADB
    13: Fault.FULL,  # SQLITE_FULL
    8: Fault.READ_ONLY,  # SQLITE_READONLY
    3: Fault.READ_ONLY,  # SQLITE_PERM
    10: Fault.IO,  # SQLITE_IOERR
    14: Fault.IO,  # SQLITE_CANTOPEN
}

_TEXTS = {
    Fault.BUSY: ("is locked by another program", "Close the program that holds it open (a database browser, say)."),
    Fault.DAMAGED: ("is damaged", "It will be set aside and begun anew."),
    Fault.FULL: ("cannot be written: the disk is full", "Free some space, or set NBLLM_HOME to a folder on another disk."),
    Fault.READ_ONLY: ("cannot be written: it is read-only", "Make it writable, or set NBLLM_HOME to a folder of your own."),
    Fault.IO: ("cannot be read or written", "Check the disk, or set NBLLM_HOME to a folder on another disk."),
    Fault.OTHER: ("cannot be used", "Move it away to begin anew; nbllm makes a new one."),
}


def fault_of(exc: sqlite3.Error) -> Fault:
    """Classify an error by SQLite's primary result code (https://sqlite.org/rescode.html)."""
    code = getattr(exc, "sqlite_errorcode", None)
    return Fault.OTHER if code is None else _CODES.get(code & 0xFF, Fault.OTHER)


def storage_error(path: Path, fault: Fault, exc: BaseException | None = None) -> StorageError:
    """Say what is wrong with a file, and what to do."""
    if fault is Fault.IO and not path.parent.is_dir():
        return StorageError(
            f"The folder {path.parent} is gone: it was deleted or moved while nbllm was using it, and what was in it went with it.",
            hint="Put it back, or leave it gone; then restart the kernel, or make a new Client: what is missing is made anew.",
        )
    what, hint = _TEXTS[fault]
    detail = f" ({exc})" if exc is not None and fault not in {Fault.BUSY, Fault.FULL} else ""
    return StorageError(f"{path} {what}{detail}.", hint=hint)
