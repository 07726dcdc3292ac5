"""What is told while an engine starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_SHOWN_CHARS = 160
Stage = Literal["launched", "loading", "listening", "first answer", "ready"]


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One look at an engine that is being started.

    stage: launched (the process runs), loading (nothing answers yet), listening (/health answers), first answer (one token was
    asked for), ready. elapsed_s: since the launch. line: the last line of its log, secrets masked. lines: what came since the event
    before.
    """

    name: str
    stage: Stage
    elapsed_s: float
    line: str = ""
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as a line for people."""
        line = self.line if len(self.line) <= _SHOWN_CHARS else self.line[: _SHOWN_CHARS - 1] + "…"
        last = f" · {line}" if line and self.stage != "ready" else ""
        return f"{self.name}: {self.stage}, {self.elapsed_s:.0f} s{last}"


OnEvent = Callable[[EngineEvent], object]
