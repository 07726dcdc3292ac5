"""cache: entries that cannot be read, and stores that cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.ports import Stored
from nbllm.storage.memory import MemoryResponseStore
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.world import World, now_s


class Odd(MemoryResponseStore):
    """A store whose entries read back as something else."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def get_now(self, key: str) -> Stored | None:
        found = super().get_now(key)
        return None if found is None else replace(found, answer=self._answer)


@pytest.mark.parametrize(
    "answer",
    [{}, {"text": "x"}, {"text": "x", "finish_reason": "stop", "usage": {"nonsense": 1}}, [], "text",
     {"text": "x", "finish_reason": "stop", "vectors": "!", "shape": [1]}],
)  # fmt: skip
@pytest.mark.parametrize("door", ["ask", "door"])
def test_an_entry_that_is_no_answer_is_a_miss(answer: Any, door: str) -> None:
    """An entry whose content this version cannot read is a miss, never a crash."""

    async def run() -> None:
        world = World(FakeProvider("a", "b"), store=Odd(answer))
        ask: Callable[..., Any] = getattr(world, door)
        await ask("q")
        assert (await ask("q")).text == "b"
        world.store = MemoryResponseStore()
        await world.close()

    run_virtual(run())


class Full(MemoryResponseStore):
    """A store that cannot be written."""

    async def put(self, entry: Stored) -> None:
        raise errors.StorageError("The disk is full.")


class Stuck(MemoryResponseStore):
    """A store that takes for ever to write."""

    async def put(self, entry: Stored) -> None:
        await asyncio.sleep(10_000)


@pytest.mark.parametrize(("store", "words"), [(Full, "The disk is full"), (Stuck, "too slow")])
def test_an_answer_that_cannot_be_kept_is_delivered_with_a_note(store: type[MemoryResponseStore], words: str) -> None:
    """A full, read-only, locked or hanging disk costs the note, half a second at most, and never the answer or the deadline."""

    async def run() -> None:
        world = World(FakeProvider(default="fine"), store=store())
        began = now_s()
        for deadline_s in (300, 0.2):
            reply = await world.ask("q", deadline_s=deadline_s)
            assert reply.text == "fine"
            assert any("not kept" in note and words in note for note in reply.notes)
        assert now_s() - began <= 0.8
        await world.close()

    run_virtual(run())
