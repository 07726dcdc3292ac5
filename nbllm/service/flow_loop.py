"""The loop that async flows run on: a thread of its own, so that one that blocks stalls no request that is no flow.

All async flows share it, because what they keep for themselves (a lock, a client of their own) belongs to one loop.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from nbllm.background import LoopHost, run_loop
from nbllm.outcome import Outcome

_BORN_S = 10.0
_END_S = 2.0


class FlowLoop:
    """Starts its thread on first use. One that no longer answers is left to itself, and another takes its place."""

    def __init__(self, name: str = "nbllm-flows") -> None:
        self._name = name
        self._host: LoopHost | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def host(self) -> LoopHost:
        """Return the loop. RuntimeError after `aclose`."""
        if self._closed:
            raise RuntimeError("The service is closed.")
        if self._host is None:
            born: Outcome[LoopHost] = Outcome()
            # A thread of a flow that never comes back must not keep the loop from ending.
            own = {"born": born, "with_threads": False}
            self._thread = threading.Thread(target=run_loop, kwargs=own, name=self._name, daemon=True)
            self._thread.start()
            if not born.wait(_BORN_S):
                raise RuntimeError("The thread for async flows did not start.")
            self._host = born.get()
        return self._host

    async def answers(self, within_s: float) -> bool:
        """Whether the loop gets to do anything; one that does not is replaced for the flows that come."""
        host = self._host
        if host is None:
            return True
        here: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine = asyncio.get_running_loop()

        def told() -> None:
            if not here.done():
                here.set_result(None)

        def seen() -> None:
            with suppress(RuntimeError):  # whoever asked is gone
                mine.call_soon_threadsafe(told)

        with suppress(RuntimeError):
            host.loop.call_soon_threadsafe(seen)
        done, _ = await asyncio.wait([here], timeout=within_s)
        if not done and self._host is host:
            with suppress(RuntimeError):
                host.stop()  # should it ever come back
            self._host = self._thread = None
        return bool(done)

    async def aclose(self) -> None:
        """End the loop and its thread; one that is stuck is left behind, and does not keep the process."""
        host, thread, self._host, self._thread, self._closed = self._host, self._thread, None, None, True
        if host is not None and thread is not None:
            with suppress(RuntimeError):
                host.stop()
            await asyncio.to_thread(thread.join, _END_S)
