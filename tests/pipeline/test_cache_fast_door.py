"""cache: a hit that is answered on the caller's own thread is the hit that the road would give."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import Request
from nbllm.core.ports import Stored
from nbllm.core.reply import Reply
from nbllm.pipeline.road import Hit
from nbllm.pipeline.stage import settle_now
from nbllm.storage.memory import MemoryResponseStore
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.making import Watcher
from tests.pipeline.world import World, now_s, outcome
from tests.starvation import within


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature": "f", "user": "u"},
        {"logprobs": True},
        {"json_schema": {"type": "integer"}, "schema_type": {"type": "integer"}},
    ],
)
def test_the_fast_door_gives_what_the_road_gives(options: dict[str, Any]) -> None:
    """A hit by try_hit and one by the road are the same reply, and each writes exactly one row, the same row."""

    async def run() -> None:
        world = World(FakeProvider(default="42"))
        await world.ask("q", **options)
        first = dict(world.ledger.calls_by_id)
        world.ledger.writes.clear()
        by_road = await world.ask("q", **options)
        by_door = await world.door("q", **options)
        assert replace(by_door, call_id="") == replace(by_road, call_id="")
        road_row, door_row = (row for call_id, row in world.ledger.calls_by_id.items() if call_id not in first)
        assert replace(door_row, call_id="") == replace(road_row, call_id="")
        assert world.ledger.writes == ["open_call", "close_call", "add_call"]
        assert world.provider.calls == 1
        await world.close()

    run_virtual(run())


def test_what_the_fast_door_missed_is_not_looked_for_again() -> None:
    """A miss hands the opened call on: its entry is looked for once, its key made once, its row written once."""

    async def run() -> None:
        class Counting(MemoryResponseStore):
            looked = 0

            def get_now(self, key: str) -> Stored | None:
                self.looked += 1
                return super().get_now(key)

        world = World(store=Counting())
        await world.door("q")
        assert world.store.looked == 1
        assert world.ledger.writes[0] == "open_call"
        assert len(world.ledger.calls_by_id) == 1
        await world.close()

    run_virtual(run())


def test_users_code_and_long_texts_do_not_run_on_a_loop() -> None:
    """On an event loop the fast door leaves checks, types with validators, and long texts to the road's worker threads."""

    async def run() -> None:
        schema = {"type": "string"}
        long = "x" * 100_000
        world = World(FakeProvider(long, default="short"))
        await world.ask("long", json_schema=schema, schema_type=schema)
        await world.ask("short", json_schema=schema, schema_type=schema)

        def by_door(text: str, *, own_thread: bool = False, **options: Any) -> bool:
            opened = world.road.try_hit(world.request(text, json_schema=schema, **options), own_thread=own_thread)
            if not hasattr(opened, "reply"):
                assert opened.call is not None
                assert not opened.call.looked_up
            return hasattr(opened, "reply")

        assert by_door("short", schema_type=schema)
        assert not by_door("long", schema_type=schema)
        assert not by_door("short", schema_type=str)
        assert not by_door("short", schema_type=schema, check=lambda _: True)
        assert by_door("long", schema_type=schema, own_thread=True)
        opened = world.road.try_hit(world.request("long", json_schema=schema, schema_type=schema), own_thread=False)
        hit = await world.road(opened, Watcher())
        assert isinstance(hit, Reply)
        assert hit.source == "cache"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("user", ["check", "type"])
def test_a_hit_with_users_code_is_inside_the_deadline(user: str) -> None:
    """On the caller's own thread too the fast door leaves the user's code to the road: a hit waits no longer than its deadline."""

    async def run() -> None:
        release = threading.Event()

        @dataclass
        class Slow:
            x: int

            def __post_init__(self) -> None:
                release.wait(5)

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        options = {"check": lambda _: release.wait(5)} if user == "check" else {"json_schema": schema, "schema_type": Slow}
        plain = {"json_schema": schema, "schema_type": schema} if user == "type" else {}
        world = World(FakeProvider(default='{"x": 1}'))
        await world.ask("q", **plain)
        try:
            began = now_s()
            opened = world.road.try_hit(world.request("q", deadline_s=0.5, **options))
            assert isinstance(opened, Request)
            assert opened.call is not None
            assert not opened.call.looked_up
            assert isinstance(await outcome(world.road(opened, Watcher())), errors.DeadlineExceeded)
            assert now_s() - began <= 0.6
        finally:
            release.set()
        await world.close()

    run_virtual(run(), patience_s=0.01)


@pytest.mark.parametrize("deadline_s", [0.01, 300.0])
def test_a_hit_outlives_trouble_with_the_ledger(deadline_s: float) -> None:
    """A row that cannot be written is a note on the hit; a locked ledger is waited for 0.05 s at most, or not at all."""

    async def run() -> None:
        world = World(FakeProvider(default="x"))
        await world.ask("q")
        world.ledger.locked_s = 100.0
        hit = world.road.try_hit(world.request("q", deadline_s=deadline_s))
        assert isinstance(hit, Hit)
        assert (hit.written is None) == (deadline_s < 0.05)
        with within(1.0):  # not the 100 s for which it is locked
            settle_now(hit.written)
        world.ledger.trouble = errors.StorageError("The disk is full.")
        hit = world.road.try_hit(world.request("q", deadline_s=deadline_s))
        assert isinstance(hit, Hit)
        assert (hit.reply.text, hit.reply.notes, hit.written) == ("x", ("The disk is full.",), None)
        await world.close()

    run_virtual(run())
