"""What SQLite's errors mean to nbllm, and to the user, who is told once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from nbllm.errors import StorageError

OnTrouble = Callable[[str], object]


class Fault(Enum):
    """Kinds of trouble with a database file."""

    BUSY = "busy"
    DAMAGED = "damaged"
    FULL = "full"
    READ_ONLY = "read-only"
    IO = "io"
    OTHER = "other"


LASTING = frozenset({Fault.FULL, Fault.READ_ONLY, Fault.IO})
"""What trying again does not mend: a write that meets it is given up."""

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
            hint="Put it back, or leave it gone: the next call makes it anew.",
        )
    what, hint = _TEXTS[fault]
    detail = f" ({exc})" if exc is not None and fault not in {Fault.BUSY, Fault.FULL} else ""
    return StorageError(f"{path} {what}{detail}.", hint=hint)


class Troubles:
    """What is wrong with one file, told to the user once of each kind.

    path: where the file is. on_trouble: see Database.
    """

    def __init__(self, path: Callable[[], Path], on_trouble: OnTrouble | None) -> None:
        self.degraded: str | None = None
        """What is wrong just now, None for nothing."""
        self.lasting = 0
        """How many writes met what trying again does not mend."""
        self._path = path
        self._on_trouble = on_trouble
        self._told: set[Fault | str] = set()

    def error(self, exc: Exception) -> StorageError:
        """Remember what is wrong, tell the user once, and return it as a StorageError."""
        fault: Fault | str = str(exc)
        if isinstance(exc, sqlite3.Error):
            fault = fault_of(exc)
            self.lasting += fault in LASTING
            exc = storage_error(self._path(), fault, exc)
        error = exc if isinstance(exc, StorageError) else StorageError(str(exc))
        self.degraded = error.summary
        self.tell(fault, str(error))
        return error

    def busy(self) -> StorageError:
        """Return the error of a job that waited too long for a lock."""
        return self.error(storage_error(self._path(), Fault.BUSY))

    def tell(self, kind: Fault | str, text: str) -> None:
        """Tell the user, unless of this kind before."""
        if kind not in self._told and self._on_trouble is not None:
            self._told.add(kind)
            self._on_trouble(text)
