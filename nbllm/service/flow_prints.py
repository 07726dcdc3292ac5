"""What flows print: kept off the service's stdout and stderr, where each line is a JSON object of its log, and out of every answer.

A print of a flow is most likely what it was asked or what it answered; so the log gets it, redacted, only with log_prompts, and
else how much it was.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from nbllm.flow_context import FLOW, WATCHER
from nbllm.redaction import redact

_MOST_CHARS = 2000
_log = logging.getLogger("nbllm.service")
_telling: ContextVar[bool] = ContextVar("nbllm_telling", default=False)
"""Whether the log is being told of a print: what a broken log prints of that is not told again."""


class _Prints(io.TextIOBase):
    """What stands for a stream of this process and tells who prints: flows into the log, all others onto the real one.

    users: who wants it; without any all goes onto the real one. say_what: what flows print is logged, and not only how much.
    """

    def __init__(self, name: str, real: TextIO) -> None:
        self._name = name
        self.real = real
        self.users = 0
        self.say_what = False

    def write(self, text: str) -> int:
        """Write a piece of text, of a flow as a line of the log. White space alone, such as a print's line end, is no line."""
        if WATCHER.get() is None or not self.users:
            return self.real.write(text)
        if text.strip() and not _telling.get():
            token = _telling.set(True)
            try:
                flow = FLOW.get()
                what = f": {redact(text[:_MOST_CHARS])}" if self.say_what else ""
                _log.info("The flow %s printed %d characters%s", "?" if flow is None else flow.name, len(text), what)
            finally:
                _telling.reset(token)
        return len(text)

    def flush(self) -> None:
        """Flush the real one."""
        self.real.flush()

    def fileno(self) -> int:
        """Return the real one's."""
        return self.real.fileno()

    def isatty(self) -> bool:
        """Whether the real one is a terminal."""
        return self.real.isatty()

    def writable(self) -> bool:
        """Say that one can write."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there, a look at the real one here
        """The real one's."""
        return self.real.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # as above
        """The real one's."""
        return self.real.errors

    def let_go(self) -> None:
        """Stand aside when nobody wants it any more, unless another stream stands here by now."""
        self.users -= 1
        if not self.users and getattr(sys, self._name) is self:
            setattr(sys, self._name, self.real)


@contextmanager
def flows_print_into_the_log(*, say_what: bool = False) -> Iterator[None]:
    """Have flows of this process print into the log for a with block. say_what: the text too, not only its length.

    Within such a block another one only says anew what is logged. What looks sys.stdout or sys.stderr up once, as handlers of logs
    do, has to do that within.
    """
    held = [_held(name, say_what) for name in ("stdout", "stderr") if getattr(sys, name) is not None]
    try:
        yield
    finally:
        for one in held:
            one.let_go()


def _held(name: str, say_what: bool) -> _Prints:
    stream = getattr(sys, name)
    if not isinstance(stream, _Prints):
        stream = _Prints(name, stream)
        setattr(sys, name, stream)
    stream.users += 1
    stream.say_what = say_what
    return stream


def real_stream(stream: Any) -> Any:
    """Return what is behind a stream that tells who prints; any other as it is."""
    while isinstance(stream, _Prints):
        stream = stream.real
    return stream
