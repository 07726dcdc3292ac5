from __future__ import annotations

import asyncio
import threading

from nbllm.storage.memory import MemoryState


def test_apply_replaces_and_returns():
    """The function sees None first, then what it left."""

    async def run() -> None:
        state: MemoryState[int] = MemoryState()
        assert await state.read("k") is None
        assert await state.apply("k", lambda old: ((old or 0) + 1, old)) is None
        assert await state.apply("k", lambda old: ((old or 0) + 1, old)) == 1
        assert await state.read("k") == 2
        assert await state.read("other") is None

    asyncio.run(run())


def test_threads_lose_no_change():
    """Eight threads count to 8000 together."""
    state: MemoryState[int] = MemoryState()

    def work() -> None:
        async def run() -> None:
            for _ in range(1000):
                await state.apply("k", lambda old: ((old or 0) + 1, None))

        asyncio.run(run())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(state.read("k")) == 8000
