"""What the road has to say to the user, as warnings that point at the user's own line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable

from nbllm.errors import NbllmWarning


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
