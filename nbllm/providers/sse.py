"""Server-sent events out of bytes, as they come. Pure: no clock, no socket.

Follows the WHATWG "event stream interpretation", with two liberties that servers of this field need: a line `error: ...`
(llama.cpp) is an event named "error", and what stands in the last lines is an event even when the empty line after it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nbllm.errors import AnswerTooLarge

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. `name` is "message" unless the server named it."""

    data: str
    name: str = "message"


class SseParser:
    """Turns chunks of bytes, cut anywhere, into events. The same bytes give the same events, wherever they are cut.

    limit_bytes: longest line, and most data in one event; more raises AnswerTooLarge, after the events before it.
    """

    __slots__ = ("_bom_seen", "_data", "_data_bytes", "_limit", "_name", "_pieces", "_pieces_bytes", "_skip_newline")

    def __init__(self, limit_bytes: int = 1024 * 1024) -> None:
        self._limit = limit_bytes
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._data: list[str] = []
        self._data_bytes = 0
        self._name = ""
        self._skip_newline = False
        self._bom_seen = False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes. Iterate to the end before the next chunk is fed."""
        if self._skip_newline and chunk:
            self._skip_newline = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        lines = chunk.splitlines()
        if not lines:
            return
        if chunk.endswith((b"\n", b"\r")):
            # CRLF may be cut in the middle: the line ends at its CR, and the LF that may follow is no second line end.
            self._skip_newline = chunk.endswith(b"\r")
            rest = b""
        else:
            rest = lines.pop()
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._pieces_bytes = 0
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event
        if rest:
            self._pieces.append(rest)
            self._pieces_bytes += len(rest)
            if self._pieces_bytes > self._limit:
                self._too_large()

    def finish(self) -> Iterator[Event]:
        """Yield what the end of the bytes completes: a last line or event that nothing ended."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        for line in (rest, b"") if rest else (b"",):
            event = self._line(line)
            if event is not None:
                yield event

    def _line(self, line: bytes) -> Event | None:
        if len(line) > self._limit:
            self._too_large()
        if not self._bom_seen:
            self._bom_seen = True
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            self._add(line[6:] if line.startswith(b"data: ") else line[5:])
            return None
        if not line:
            return self._dispatch()
        if line.startswith(b":"):
            return None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._add(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"error":
            self._name = "error"
            self._add(value)
        return None

    def _add(self, value: bytes) -> None:
        self._data_bytes += len(value)
        if self._data_bytes > self._limit:
            self._too_large()
        self._data.append(value.decode("utf-8", "replace"))

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._name
        if not data:
            self._name = ""
            return None
        event = Event(data[0] if len(data) == 1 else "\n".join(data), name or "message")
        self._data = []
        self._data_bytes = 0
        self._name = ""
        return event

    def _too_large(self) -> None:
        raise AnswerTooLarge(f"A line of the stream holds more than {self._limit:,} bytes. The connection was closed.")
