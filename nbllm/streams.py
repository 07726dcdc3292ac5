"""An answer as str pieces: Stream, and its async twin AsyncStream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from typing import Self

from nbllm.core.messages import Partial
from nbllm.core.reply import Reply
from nbllm.live import DeltaEvent, LiveCall
from nbllm.notices import say


class _Pieces:
    """What Stream and AsyncStream share: the reply, and what came so far."""

    def __init__(self, live: LiveCall) -> None:
        self._live = live

    @property
    def reply(self) -> Reply:
        """The reply, once every piece was taken: RuntimeError before that, and what ended the call if there is none."""
        if not self._live.taken:
            raise RuntimeError("The stream is not at its end yet: take every piece, then ask for .reply.")
        return self._live.reply

    @property
    def restarts(self) -> tuple[str, ...]:
        """Why the answer began anew, each time: pieces from before the last restart are void."""
        return tuple(self._live.restarts)

    @property
    def partial(self) -> Partial:
        """What came so far."""
        return self._live.partial()


class Stream(_Pieces):
    """An answer as str pieces. A context manager; leaving it early, or dropping it, ends the call upstream."""

    def __init__(self, live: LiveCall) -> None:
        super().__init__(live)
        self._pieces = _pieces(live)

    def __iter__(self) -> Self:
        """Return the stream."""
        return self

    def __next__(self) -> str:
        """Return the next piece."""
        return next(self._pieces)

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the call."""
        self.close()

    def close(self) -> None:
        """End the call, if it still runs."""
        self._pieces.close()
        self._live.leave()


class AsyncStream(_Pieces):
    """The async twin of Stream."""

    def __init__(self, live: LiveCall) -> None:
        super().__init__(live)
        self._pieces = _apieces(live)

    def __aiter__(self) -> Self:
        """Return the stream."""
        return self

    async def __anext__(self) -> str:
        """Return the next piece."""
        return await anext(self._pieces)

    async def __aenter__(self) -> Self:
        """Return the stream."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the call."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the call, if it still runs."""
        await self._pieces.aclose()
        await self._live.aleave()


# Functions, not methods: a generator that held its stream would keep a dropped stream, and its call, until the collector runs.


def _pieces(live: LiveCall) -> Generator[str, None, None]:
    with closing(live.events()) as events:
        for event in events:
            if isinstance(event, DeltaEvent) and event.delta.text:
                yield event.delta.text
    say(live.reply.notes)


async def _apieces(live: LiveCall) -> AsyncGenerator[str, None]:
    async with aclosing(live.aevents()) as events:
        async for event in events:
            if isinstance(event, DeltaEvent) and event.delta.text:
                yield event.delta.text
    say(live.reply.notes)
