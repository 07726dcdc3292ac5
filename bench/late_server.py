"""The canned server, whose answers come LATE_S seconds after their requests, as a model's do.

python -m bench.late_server        prints its port, then serves until its stdin closes
"""

from __future__ import annotations

import asyncio

from bench import server

LATE_S = 0.1


class LateConnection(server.Connection):
    """Answers each request with the canned bytes, after a while."""

    def data_received(self, data: bytes) -> None:
        transport = self.transport
        self.transport = _Late(transport)  # type: ignore[assignment]
        super().data_received(data)
        self.transport = transport


class _Late:
    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(LATE_S, self._transport.write, data)  # type: ignore[attr-defined]


if __name__ == "__main__":
    server.Connection = LateConnection  # type: ignore[misc]
    asyncio.run(server.main())
