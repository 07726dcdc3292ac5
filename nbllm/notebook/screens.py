"""Where an answer is watched: a notebook, a terminal, or nowhere. Only the thread that runs the cell may use a screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from nbllm.notebook.answer_view import bundle, foot
from nbllm.notebook.pace import Pace
from nbllm.notebook.progress import Progress
from nbllm.notebook.safe_text import plain
from nbllm.redaction import redact_registered

Clock = Callable[[], float]


class Screen(Protocol):
    """Shows one answer while it comes and leaves its final state behind."""

    def tick(self, progress: Progress, piece: str | None) -> None:
        """A piece came ("": one without text), or, with None, a moment passed in which nothing did."""

    def restarted(self, progress: Progress) -> None:
        """What came so far is void."""

    def finish(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """The call is over: show the last state. badge: what the output's own metadata say of the answer (lab.values.badge)."""

    def stopped(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """The call ended early: what is shown already must say so; where nothing is shown, the error says it. badge: as above."""


class Quiet:
    """Shows nothing."""

    def tick(self, progress: Progress, piece: str | None) -> None:
        """Show nothing."""

    def restarted(self, progress: Progress) -> None:
        """Show nothing."""

    def finish(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """Show nothing."""

    def stopped(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """Show nothing."""


class Notebook:
    """One display that is updated in place; its last state is what the notebook keeps.

    language: "" for Markdown, or the language of a code block (JSON, for an answer that must fit a schema).
    """

    def __init__(self, *, updates_per_s: float = 10.0, language: str = "", clock: Clock = time.monotonic) -> None:
        self._pace = Pace(updates_per_s=updates_per_s)
        self._language = language
        self._clock = clock
        self._handle: Any = None

    def tick(self, progress: Progress, piece: str | None) -> None:
        """Update the display when an update is due."""
        now_s = self._clock()
        if self._pace.due(now_s, news=piece is not None):
            self._show(progress.text, progress.line(now_s), running=True)

    def restarted(self, progress: Progress) -> None:
        """Wait for the next update: the new answer takes the place of the old one."""

    def finish(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """Show the last state, whenever the last update was."""
        self._show(text, line, notes, metadata={} if badge is None else {"nbllm": dict(badge)})

    def stopped(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """Show the last state where there is a display."""
        if self._handle is not None or text:
            self.finish(text, line, notes, badge)

    def _show(
        self,
        text: str,
        line: str,
        notes: Sequence[str] = (),
        *,
        running: bool = False,
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        from IPython.display import display

        began_s, worked_s = self._clock(), time.thread_time()
        data = bundle(text, line, notes, language=self._language, running=running)
        if self._handle is None:
            self._handle = display(data, metadata=dict(metadata), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, metadata=dict(metadata), raw=True)
        self._pace.sent(began_s, time.thread_time() - worked_s, sum(map(len, data.values())))


class Terminal:
    """Prints the pieces as they come, then the meter line."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write
        self._last = ""
        self._chars = 0

    def tick(self, progress: Progress, piece: str | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Print the piece."""
        if piece:
            self._chars += len(piece)
            self._print(plain(redact_registered(piece)))

    def restarted(self, progress: Progress) -> None:
        """Say so; what was printed cannot be taken back."""
        if self._chars:
            self._print(f"\n[the answer begins anew: {progress.restarted}]\n")
        self._chars = 0

    def finish(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Print what is missing, the meter line and the notes."""
        self._print(plain(redact_registered(text[self._chars :])))
        gap = "" if not self._last else "\n" if self._last.endswith("\n") else "\n\n"
        self._print(f"{gap}{foot(line, notes)}\n")

    def stopped(self, text: str, line: str, notes: Sequence[str], badge: Mapping[str, Any] | None = None) -> None:
        """Print the end where pieces were printed."""
        if self._chars or text:
            self.finish(text, line, notes, badge)

    def _print(self, text: str) -> None:
        if text:
            self._last = text
            (self._write or sys.stdout.write)(text)
            sys.stdout.flush()


def screen_for(shell: Any, *, quiet: bool, updates_per_s: float, language: str) -> Screen:
    """Return the screen that fits the shell: a kernel's is a notebook, any other IPython is a terminal."""
    if quiet:
        return Quiet()
    if getattr(shell, "kernel", None) is not None:
        return Notebook(updates_per_s=updates_per_s, language=language)
    return Terminal()


class ShownAlready:
    """Stands in for sys.displayhook until the running cell ends, and passes over one value: the reply that a screen has shown.

    IPython sets sys.displayhook for each cell and puts its own back at the cell's end. The reply is still kept in `_` and Out.
    """

    def __init__(self, shell: Any, usual: Callable[[object], object]) -> None:
        self._shell = shell
        self._usual = usual
        self.reply: object = None

    def __call__(self, value: object) -> None:
        """Show a value, unless it is the reply."""
        if value is None or value is not self.reply:
            self._usual(value)
            return
        self._shell.displayhook.update_user_ns(value)
        self._shell.displayhook.fill_exec_result(value)


def shown_once(shell: Any, reply: object) -> None:
    """Let the rest of the running cell pass over `reply` as a last value: its screen has shown it, or was told not to."""
    if shell.display_trap.is_active:
        if not isinstance(sys.displayhook, ShownAlready):
            sys.displayhook = ShownAlready(shell, sys.displayhook)
        sys.displayhook.reply = reply
