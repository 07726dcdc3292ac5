"""What flows print: kept off the service's stdout, where each line is a JSON object of its log, and out of every answer.

A print of a flow is most likely what it was asked or what it answered; so the log gets it, redacted, only with log_prompts, and
else how much it was.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from nbllm.flow_context import FLOW, WATCHER
from nbllm.redaction import redact

_MOST_CHARS = 2000
_log = logging.getLogger("nbllm.service")


class _Prints(io.TextIOBase):
    """A stdout that tells who prints: flows into the log, all others onto the real one."""

    def __init__(self, real: TextIO, *, say_what: bool) -> None:
        self._real = real
        self._say_what = say_what

    def write(self, text: str) -> int:
        """Write a piece of text, of a flow as a line of the log. White space alone, such as a print's line end, is no line."""
        if WATCHER.get() is None:
            return self._real.write(text)
        flow = FLOW.get()
        if text.strip():
            what = f": {redact(text[:_MOST_CHARS])}" if self._say_what else ""
            _log.info("The flow %s printed %d characters%s", "?" if flow is None else flow.name, len(text), what)
        return len(text)

    def flush(self) -> None:
        """Flush the real one."""
        self._real.flush()

    def fileno(self) -> int:
        """Return the real one's."""
        return self._real.fileno()

    def isatty(self) -> bool:
        """Whether the real one is a terminal."""
        return self._real.isatty()

    def writable(self) -> bool:
        """Say that one can write."""
        return True


@contextmanager
def flows_print_into_the_log(real: TextIO, *, say_what: bool) -> Iterator[None]:
    """Have flows of this process print into the log for a with block. say_what: the text too, not only its length."""
    with redirect_stdout(_Prints(real, say_what=say_what)):
        yield
