"""One process is one session unless it is named: every client of a process pays into the same session budget."""

from __future__ import annotations

import os
from uuid import uuid4

_made: tuple[int, str] | None = None


def process_session() -> str:
    """Return this process's session; a forked child is a process of its own."""
    global _made  # noqa: PLW0603 - one session a process is the point
    pid = os.getpid()
    if _made is None or _made[0] != pid:
        _made = (pid, uuid4().hex[:12])
    return _made[1]
