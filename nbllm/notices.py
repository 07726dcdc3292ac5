"""What the road has to say to the user, as warnings that point at the user's own line."""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

from msgspec.structs import replace

from nbllm.core.reply import Reply
from nbllm.errors import NbllmWarning


class News:
    """What storage and settings have to say, until a reply takes it along. Any thread may come with more."""

    def __init__(self, first: Iterable[str]) -> None:
        self._waiting = deque(first)
        self._told: list[str] = []

    def heard(self, text: str) -> None:
        """Take in some trouble, which its source tells once of each kind."""
        self._told.append(text.partition("\n")[0])
        self._waiting.append(text)

    def added(self, reply: Reply) -> Reply:
        """Return the reply with what was heard since the last one; what was said before is not said again."""
        if not self._told and not self._waiting:
            return reply
        notes = [note for note in reply.notes if not any(told in note for told in self._told)]
        with suppress(IndexError):
            while True:
                notes.append(self._waiting.popleft())
        return replace(reply, notes=tuple(notes)) if reply.notes != tuple(notes) else reply


def say(notes: Iterable[str]) -> None:
    """Warn of each note at the nearest line that is not nbllm's own: Python then shows it once per place."""
    for note in notes:
        warnings.warn(note, NbllmWarning, stacklevel=_outside())


def _outside() -> int:
    """Return the stacklevel, seen from `say`, of the nearest frame outside of this package."""
    level = 1
    frame = sys._getframe(1)  # noqa: SLF001 - documented; `inspect` would read source files
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "nbllm":
        frame = frame.f_back
        level += 1
    return level
