"""A transport that sends the head of an answer together with what follows it.

uvicorn writes head and body apart: two system calls and two packets, of which the client can use only the second.
"""

from __future__ import annotations

import asyncio
from typing import Any

_ASKED_MOST = ("is_closing", "get_protocol", "get_extra_info", "pause_reading", "resume_reading")


class Joined:
    """Stands for another transport. A write that begins a head waits for the next write, or for the loop's next turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        for name in _ASKED_MOST:
            if hasattr(transport, name):
                setattr(self, name, getattr(transport, name))

    def __getattr__(self, name: str) -> Any:
        """Be the other transport in all else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data, or hold it for a moment."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/"):
            self._held = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are not sent yet."""
        return len(self._held) + self._transport.get_write_buffer_size()
