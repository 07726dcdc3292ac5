"""A streamed answer whose source is closed when the answer ends, however it ends."""

from __future__ import annotations

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosedStream(StreamingResponse):
    """As StreamingResponse, and the generator's `finally` runs before the request is over.

    Starlette cancels the sending when a client leaves; the generator stays suspended where it yielded until it is collected, which
    may be minutes later, and what it holds (a call upstream, a place in the gate) with it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all, then close the source."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()
