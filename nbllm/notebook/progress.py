"""What is known of a call while it runs, and the line that says so."""

from __future__ import annotations

from dataclasses import dataclass, field

from nbllm.core.messages import Attempt, Delta
from nbllm.core.meter_line import short_label

CHARS_PER_TOKEN = 4.0
"""Rule of thumb for English, only for the running count, which is marked with ~; the final line has the provider's count."""


@dataclass(slots=True)
class Progress:
    """A call in flight as its watcher sees it. All `_s` are on one monotonic clock."""

    model: str
    started_s: float
    attempt: Attempt | None = None
    attempts: int = 0
    pieces: list[str] = field(default_factory=list)
    chars: int = 0
    reasoning_chars: int = 0
    tool_chars: int = 0
    sent_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    restarted: str = ""
    void: str = ""
    """The text of the last attempt that broke off: void, but all there is should nothing else come."""

    def started(self, attempt: Attempt, now_s: float) -> None:
        """An attempt is about to be sent: its first token is timed from here, as in the final line."""
        self.attempt = attempt
        self.sent_s = now_s
        self.attempts += 1
        self.model = attempt.rung or self.model

    def delta(self, delta: Delta, now_s: float) -> None:
        """A piece came."""
        if self.first_s is None:
            self.first_s = now_s
        self.last_s = now_s
        if delta.text:
            self.pieces.append(delta.text)
            self.chars += len(delta.text)
        self.reasoning_chars += len(delta.reasoning)
        if delta.tool_call is not None:
            self.tool_chars += len(delta.tool_call.arguments)

    def began_anew(self, reason: str) -> None:
        """What came so far is void."""
        self.void = self.text or self.void
        self.pieces.clear()
        self.chars = self.reasoning_chars = self.tool_chars = 0
        self.first_s = self.last_s = None
        self.restarted = reason

    @property
    def text(self) -> str:
        """The answer so far."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def line(self, now_s: float) -> str:
        """Return the running meter line: who answers, how much came, how fast; what is being waited for."""
        model = short_label(self.model)
        parts = [f"{model} (simulated)" if self.model.startswith("sim/") else model]
        tokens = (self.chars + self.reasoning_chars + self.tool_chars) / CHARS_PER_TOKEN
        if self.first_s is None:
            parts.append(f"waiting {now_s - self.started_s:.0f} s")
            if not self.attempts and now_s - self.started_s >= 1:
                parts.append("nothing sent yet: an identical call is under way, or a limit holds it back")
        else:
            parts += [f"~{tokens:.0f} out", f"first token ~{self.first_s - (self.sent_s or self.started_s):.1f} s"]
            lasted_s = (self.last_s or now_s) - self.first_s
            if lasted_s >= 0.5:
                parts.append(f"~{tokens / lasted_s:.0f} tok/s")
            parts.append(self._doing(now_s))
        if self.restarted:
            parts.append(f"began anew ({self.restarted})")
        elif self.attempts > 1:
            parts.append(f"attempt {self.attempts}")
        return " · ".join(parts)

    def _doing(self, now_s: float) -> str:
        silent_s = now_s - (self.last_s or now_s)
        if silent_s >= 2:
            return f"silent for {silent_s:.0f} s"
        if not self.chars:
            return "calling a tool" if self.tool_chars else "thinking" if self.reasoning_chars else "streaming"
        return "streaming, a part so far"
