"""cache: what is a hit, what is kept, what is neither."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from nbllm import errors
from nbllm.core.messages import Delta, Embed, Ending, Request, ToolCallFragment
from nbllm.core.ports import Stored
from nbllm.core.reply import Reply
from nbllm.pipeline.cache import complete
from nbllm.pipeline.road import Hit
from nbllm.pipeline.stage import settle_now
from nbllm.storage.memory import MemoryResponseStore
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.making import Watcher, reply
from tests.pipeline.world import World, now_s, outcome
from tests.starvation import within

TOOL_CALL = Delta(tool_call=ToolCallFragment(0, "call_1", "add", '{"a": 1}'))
INTEGER = {"type": "integer"}


class Ends(FakeProvider):
    """Gives its text, and ends with a finish reason of its own."""

    def __init__(self, reason: str | None, *deltas: Delta) -> None:
        super().__init__(default=lambda _: deltas)
        self._reason = reason

    async def send(self, wire: Any, progress: Any) -> Ending:
        return replace(await super().send(wire, progress), finish_reason=self._reason)


# ---------------------------------------------------------------------------------------------------- hits


@pytest.mark.parametrize("door", ["ask", "door"])
def test_the_second_call_is_free(door: str) -> None:
    """The same request again is answered from the cache: no request, cost 0, its own latency, and what it saved."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["an answer"], first_after_s=2)))
        ask: Callable[..., Any] = getattr(world, door)
        first = await ask("q")
        second = await ask("q")
        assert world.provider.calls == 1
        assert (second.text, second.source, second.cost_usd, second.cost_basis) == ("an answer", "cache", 0, "exact")
        assert (second.saved_usd, second.saved_s) == (first.cost_usd, pytest.approx(2))
        assert second.latency_s == 0
        assert second.attempts == ()
        assert second.message == first.message
        assert second.usage == first.usage
        assert second.call_id != first.call_id
        await world.close()

    run_virtual(run())


def test_a_fallbacks_answer_is_never_served_as_the_primarys() -> None:
    """The key names the model that answers: what the fallback said is a hit for the fallback only, and stays marked as its own."""

    async def run() -> None:
        one, two = FakeProvider(errors.ServerFailed("no", status=500), default="of one"), FakeProvider(default="of two")
        world = World(providers={"one": one, "two": two})
        first = await world.ask("q", "one/m", "two/m", retries=0)
        assert (first.text, first.rung) == ("of two", "two/m")
        again = await world.ask("q", "one/m", "two/m", retries=0)
        assert (again.text, again.rung, again.source) == ("of one", "one/m", "model")
        hit = await world.ask("q", "two/m")
        assert (hit.text, hit.rung, hit.source) == ("of two", "two/m", "cache")
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["ask", "door"])
def test_a_cascade_that_is_run_again_is_free(door: str) -> None:
    """Run All a second time: the rung that failed is asked once more, its fallback's answer comes from the cache."""

    async def run() -> None:
        dead = FakeProvider(default=errors.AuthenticationFailed("no", status=401))
        world = World(providers={"one": dead, "two": FakeProvider(default="of two")})
        ask: Callable[..., Any] = getattr(world, door)
        assert (await ask("q", "one/m", "two/m")).cost_usd > 0
        again = await ask("q", "one/m", "two/m")
        assert (again.text, again.source, again.cost_usd) == ("of two", "cache", 0)
        assert dead.calls == 1, "the key is off: not even the first rung is asked again"
        assert world.providers["two"].calls == 1
        await world.close()

    run_virtual(run())


def test_a_hit_needs_no_provider() -> None:
    """A hit costs nothing even when its provider is down and its breaker open."""

    async def run() -> None:
        world = World(FakeProvider("kept", default=errors.ServerFailed("dead", status=503)))
        await world.ask("kept question")
        for n in range(10):
            await outcome(world.ask(f"q{n}", retries=0))
        assert isinstance(await outcome(world.ask("new", retries=0)), errors.BreakerOpen)
        assert (await world.ask("kept question")).text == "kept"
        await world.close()

    run_virtual(run())


def test_modes() -> None:
    """use: reads and keeps. refresh: asks anew and keeps. off: neither."""

    async def run() -> None:
        world = World(FakeProvider("a", "b", "c", "d"))
        assert (await world.ask("q", cache="off")).text == "a"
        assert not list(world.store.entries())
        assert (await world.ask("q")).text == "b"
        assert (await world.ask("q", cache="off")).text == "c"
        assert (await world.ask("q")).text == "b"
        assert (await world.ask("q", cache="refresh")).text == "d"
        hit = await world.ask("q")
        assert (hit.text, hit.source) == ("d", "cache")
        await world.close()

    run_virtual(run())


def test_time_to_live_is_the_shorter_of_writer_and_reader() -> None:
    """An entry is fresh for the ttl it was stored with, and for no longer than the reader's own ttl."""

    async def run() -> None:
        world = World(FakeProvider("a", "b", "c"))
        await world.ask("q", ttl_s=100)
        await asyncio.sleep(50)
        assert (await world.ask("q")).text == "a"
        assert (await world.ask("q", ttl_s=40)).text == "b"
        await asyncio.sleep(30)
        assert (await world.ask("q")).text == "b"
        await asyncio.sleep(11)
        assert (await world.ask("q")).text == "c", "40 s of its own are over"
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("stale_ok_s", [None, 10.0**9])
def test_the_maximum_age_is_absolute(stale_ok_s: float | None) -> None:
    """An entry over the maximum age answers nobody, not even as a stale one."""

    async def run() -> None:
        world = World(FakeProvider("a", default=errors.ServerFailed("dead", status=500)), settings={"cache_max_age_days": 1})
        await world.ask("q")
        await asyncio.sleep(86_399)
        assert (await world.ask("q")).text == "a"
        await asyncio.sleep(2)
        assert isinstance(await outcome(world.ask("q", retries=0, stale_ok_s=stale_ok_s)), errors.AllRungsFailed)
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- schema and check on hits


@pytest.mark.parametrize("door", ["ask", "door"])
def test_data_is_rebuilt_for_this_requests_own_type(door: str) -> None:
    """`.data` of a hit is an instance of this request's type, which a re-run cell has defined anew, built from the text."""

    async def run() -> None:
        def define() -> type:
            @dataclass
            class Point:
                x: int

            return Point

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider('{"x": 3}'))
        ask: Callable[..., Any] = getattr(world, door)
        first_type, second_type = define(), define()
        assert isinstance((await ask("q", json_schema=schema, schema_type=first_type)).data, first_type)
        hit = await ask("q", json_schema=schema, schema_type=second_type)
        assert hit.source == "cache"
        assert isinstance(hit.data, second_type)
        assert hit.data.x == 3
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["ask", "door"])
def test_a_hit_that_fails_the_check_is_a_miss(door: str) -> None:
    """A stored answer passes this request's own check, or the model is asked."""

    async def run() -> None:
        world = World(FakeProvider("short", "a much longer answer"))
        ask: Callable[..., Any] = getattr(world, door)
        await ask("q")
        reply = await ask("q", check=lambda text: len(text) > 10)
        assert (reply.text, reply.source) == ("a much longer answer", "model")
        assert (await ask("q", check=lambda text: len(text) > 10)).source == "cache"
        await world.close()

    run_virtual(run())


def test_a_hit_that_fails_the_type_is_a_miss() -> None:
    """The same JSON Schema with a stricter type of the user's: the entry that does not fit it is a miss."""

    async def run() -> None:
        @dataclass
        class Even:
            x: int

            def __post_init__(self) -> None:
                if self.x % 2:
                    raise ValueError("odd")

        schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        world = World(FakeProvider('{"x": 3}', '{"x": 4}'))
        await world.ask("q", json_schema=schema, schema_type=schema)
        for door in (world.door, world.ask):
            reply = await door("q", json_schema=schema, schema_type=Even)
            assert reply.data.x == 4
        assert world.provider.calls == 2
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- damage


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


# ---------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize(
    ("reason", "deltas", "kept"),
    [
        ("stop", [Delta(text="whole")], True),
        ("tool_calls", [TOOL_CALL], True),
        ("stop", [TOOL_CALL], True),
        ("length", [Delta(text="cut")], False),
        ("content_filter", [Delta(text="filtered")], False),
        (None, [Delta(text="no reason")], False),
        ("stop", [], False),
        ("stop", [Delta(reasoning="only thought")], False),
        ("tool_calls", [], False),
    ],
)
@pytest.mark.parametrize("watched", [False, True])
def test_complete_answers_only(reason: str | None, deltas: list[Delta], kept: bool, watched: bool) -> None:
    """I5: kept is what came to its end, with a text or a tool call in it; nothing else."""

    async def run() -> None:
        world = World(Ends(reason, *deltas))
        first = await world.ask("q", watched=watched)
        assert len(list(world.store.entries())) == kept
        again = await world.ask("q", watched=watched)
        assert again.source == ("cache" if kept else "model")
        assert (again.text, dict(again.message)) == (first.text, dict(first.message))
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("kind", [errors.ServerFailed, errors.Refused, errors.StreamInterrupted, errors.BadParameter])
def test_failures_are_not_kept(kind: type[Exception]) -> None:
    """Peer bug: an error, or half an answer, in the cache."""

    async def run() -> None:
        world = World(FakeProvider(default=Script(pieces=["half"], then=kind)))
        assert isinstance(await outcome(world.ask("q", watched=True, retries=0)), errors.CallFailed)
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_a_cancelled_answer_is_not_kept() -> None:
    """What a person stopped is half an answer."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["a", "b"], gap_s=1)))
        call = world.start("q", watched=True)
        await asyncio.sleep(0.5)
        call.cancel()
        await outcome(call)
        await asyncio.sleep(5)
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_an_answer_cut_by_the_budget_is_not_kept() -> None:
    """max_tokens that a budget lowered is not part of the key, so an answer that it cut must not be kept under it."""

    async def run() -> None:
        world = World(Ends("length", Delta(text="cut short")))
        reply = await world.ask("q", budget_usd=Decimal("0.0010"))
        assert any("max_tokens was lowered" in note for note in reply.notes)
        assert reply.truncated
        assert not list(world.store.entries())
        await world.close()

    run_virtual(run())


def test_stale_static_and_interrupted_are_not_kept() -> None:
    """Only what a model said just now is kept."""
    assert complete(reply("x"))
    for source in ("cache", "semantic", "stale", "static"):
        assert not complete(replace(reply("x"), source=source))
    assert not complete(reply("x", interrupted=True))


def test_tool_calls_are_kept_whole_and_shown() -> None:
    """A hit brings the tool calls back as they were, in the message and to whoever watches."""

    async def run() -> None:
        world = World(Ends("tool_calls", TOOL_CALL))
        first = await world.ask("q")
        watcher = Watcher()
        hit = await world.ask("q", sink=watcher, watched=True)
        assert hit.source == "cache"
        assert hit.message["tool_calls"] == first.message["tool_calls"]
        assert hit.message["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
        assert [event.tool_call for event in watcher.events] == [TOOL_CALL.tool_call]
        await world.close()

    run_virtual(run())


def test_reasoning_and_logprobs_are_kept() -> None:
    """What was asked for beside the text comes back with it."""

    async def run() -> None:
        logprob = {"token": "yes", "logprob": -0.1, "top_logprobs": []}
        world = World(FakeProvider([Delta(reasoning="hm"), Delta(text="yes", logprobs=(logprob,))]))
        first = await world.ask("q", logprobs=True)
        hit = await world.ask("q", logprobs=True)
        assert (hit.reasoning, hit.logprobs) == ("hm", (logprob,))
        assert first.logprobs == hit.logprobs
        await world.close()

    run_virtual(run())


def test_vectors_are_kept_exactly() -> None:
    """Embeddings come back bit by bit, as float32 of the same shape."""

    async def run() -> None:
        world = World()
        content = Embed(texts=("one", "two"))
        first = await world.ask(content=content)
        hit = await world.ask(content=content)
        assert hit.source == "cache"
        assert hit.vectors.dtype == np.float32
        assert hit.vectors.shape == (2, 8)
        assert np.array_equal(first.vectors, hit.vectors)
        await world.close()

    run_virtual(run())


def test_an_entry_says_what_it_took() -> None:
    """Stored cost and time are those of the whole run, failed tries and repairs included; its tags name the feature."""

    async def run() -> None:
        world = World(FakeProvider(Script(first_after_s=1, then=errors.ServerFailed), Script(pieces=["fine"], first_after_s=2)))
        reply = await world.ask("q", feature="demo", tags=("mine",), ttl_s=60)
        (entry,) = world.store.entries()
        assert entry.cost_usd == reply.cost_usd
        assert entry.latency_s == pytest.approx(3)
        assert set(entry.tags) == {"mine", "feature:demo"}
        assert entry.model == "one/m"
        assert entry.expires_at == entry.created_at + 60
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- the fast door


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
        with within(0.2):
            settle_now(hit.written)
        world.ledger.trouble = errors.StorageError("The disk is full.")
        hit = world.road.try_hit(world.request("q", deadline_s=deadline_s))
        assert isinstance(hit, Hit)
        assert (hit.reply.text, hit.reply.notes, hit.written) == ("x", ("The disk is full.",), None)
        await world.close()

    run_virtual(run())
