"""record: a row for every call, hooks that can hurt nobody, recordings only where they are wanted."""

from __future__ import annotations

import asyncio
import logging
import threading
from decimal import Decimal
from typing import Any

import pytest

from nbllm import errors
from nbllm.core.messages import AttemptStatus, CallRecord, Embed
from nbllm.core.ports import Recording
from nbllm.core.reply import Reply
from nbllm.storage.memory import MemoryRecordings
from nbllm.testing import FakeProvider, Script, run_virtual
from tests.pipeline.world import World, now_s, outcome


def test_an_answer_closes_its_row() -> None:
    """The row says who asked for what, which rung answered, from where, how long it took; money is in its attempts."""

    async def run() -> None:
        world = World(FakeProvider(Script(pieces=["an answer"], first_after_s=2)), session="notebook")
        reply = await world.ask("q", "one/m", "two/m", feature="f", user="u", watched=True)
        (row,) = world.ledger.calls_by_id.values()
        assert (row.call_id, row.session, row.kind, row.status) == (reply.call_id, "notebook", "chat", AttemptStatus.DONE)
        assert (row.model, row.rung, row.source, row.feature, row.user) == ("one/m,two/m", "one/m", "model", "f", "u")
        assert (row.latency_s, row.ttft_s) == (pytest.approx(2), pytest.approx(2))
        assert (row.input_tokens, row.output_tokens) == (reply.usage.input_tokens, 2)
        assert row.key_hash is not None
        assert len(row.key_hash) == 64
        assert row.reason == "named by the caller"
        await world.close()

    run_virtual(run())


def test_embeddings_have_rows_of_their_kind() -> None:
    """The row of an embedding says so."""

    async def run() -> None:
        world = World()
        await world.ask(content=Embed(texts=("a",)))
        (row,) = world.ledger.calls_by_id.values()
        assert (row.kind, row.status) == ("embed", AttemptStatus.DONE)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (errors.BadParameter("no", status=400), AttemptStatus.FAILED, "BadParameter"),
        (RuntimeError("bug"), AttemptStatus.FAILED, "RuntimeError"),
        (Script(hang=True), AttemptStatus.CANCELLED, "CancelledError"),
    ],
)
def test_a_failure_closes_its_row(fault: Any, status: AttemptStatus, error: str) -> None:
    """Failed and cancelled calls have a row that says how they ended, after how long, on which rung."""

    async def run() -> None:
        world = World(FakeProvider(fault))
        call = world.start("q")
        await asyncio.sleep(3)
        call.cancel()
        await outcome(call)
        (row,) = world.ledger.calls_by_id.values()
        assert (row.status, row.error, row.rung, row.source) == (status, error, "one/m", None)
        assert row.latency_s == pytest.approx(3 if isinstance(fault, Script) else 0)
        await world.close()

    run_virtual(run())


def test_an_error_knows_its_call() -> None:
    """call_id, what it cost all the same, what had come, and what the road had to say are on the error."""

    async def run() -> None:
        half = Script(pieces=["half"], then=errors.StreamInterrupted)
        world = World(FakeProvider(half), settings={"ladder": []}, found=["local/tiny"])
        result = await outcome(world.ask("q", watched=True, on_interrupt="raise"))
        assert isinstance(result, errors.StreamInterrupted)
        (row,) = world.ledger.calls_by_id.values()
        assert result.call_id == row.call_id
        assert result.spent_usd == world.spent() > 0
        assert result.partial is not None
        assert result.partial.text == "half"
        assert result.__notes__ == ["found on this machine"]
        await world.close()

    run_virtual(run())


def test_cost_of_the_reply_is_that_of_all_its_attempts() -> None:
    """Failed tries and repairs are in the cost of the call; one unknown cost makes it unknown."""

    async def run() -> None:
        half = Script(pieces=["half an answer"], then=errors.StreamInterrupted)
        world = World(FakeProvider(half, "no number", "7"))
        schema = {"type": "integer"}
        reply = await world.ask("q", watched=True, json_schema=schema, schema_type=schema)
        assert [a.purpose for a in reply.attempts] == ["answer", "answer", "repair"]
        costs = [a.cost_usd for a in reply.attempts]
        assert None not in costs
        assert reply.cost_usd == sum((c for c in costs if c is not None), Decimal(0))
        assert reply.cost_basis == "estimated"
        assert reply.repair_cost_usd == costs[2]
        await world.close()

    run_virtual(run())


# ---------------------------------------------------------------------------------------------------- hooks


def test_hooks_get_one_frozen_record_of_every_call() -> None:
    """Answers, hits by either door, failures and cancellations: each calls the hooks once, in a worker thread, in order."""

    async def run() -> None:
        got: list[tuple[str, CallRecord, int]] = []
        world = World(FakeProvider("a", errors.BadParameter("no", status=400), Script(hang=True)))
        for name in ("first", "second"):
            world.road.recorder.hooks.append(lambda record, name=name: got.append((name, record, threading.get_ident())))
        await world.ask("q")
        await world.ask("q")
        await world.door("q")
        await outcome(world.ask("bad"))
        call = world.start("slow")
        await asyncio.sleep(1)
        call.cancel()
        await outcome(call)
        await world.close()
        assert [name for name, *_ in got] == ["first", "second"] * 5
        records = [record for _, record, _ in got[::2]]
        assert [r.call.source or r.call.status.value for r in records] == ["model", "cache", "cache", "failed", "cancelled"]
        assert [len(r.attempts) for r in records] == [1, 0, 0, 1, 1]
        assert [r.call for r in records] == list(world.ledger.calls_by_id.values())
        assert threading.get_ident() not in {thread for *_, thread in got}

    run_virtual(run())


def test_a_hook_that_raises_is_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """What a hook raises reaches the log, not the call, nor the hooks after it."""

    async def run() -> None:
        got: list[CallRecord] = []

        def bad(_: CallRecord) -> None:
            raise RuntimeError("hook is broken")

        world = World()
        world.road.recorder.hooks += [bad, got.append]
        with caplog.at_level(logging.ERROR, logger="nbllm"):
            assert (await world.ask("q")).text == "ok"
            await world.close()
        assert len(got) == 1
        assert "on_call hook" in caplog.text
        assert "hook is broken" in caplog.text

    run_virtual(run())


def test_a_slow_hook_holds_nothing_up() -> None:
    """A hook that hangs delays neither its call, nor the next, nor a check of another call; closing waits for it a moment."""

    async def run() -> None:
        release = threading.Event()
        world = World(FakeProvider(default="x"))
        world.road.recorder.hooks.append(lambda _: release.wait(30))
        try:
            began = now_s()
            for n in range(12):
                await world.ask(f"q{n}")
            reply = await world.ask("checked", check=lambda text: text == "x", deadline_s=5)
            assert isinstance(reply, Reply)
            assert now_s() == began
            await world.road.aclose()
            assert now_s() - began <= 2.1
        finally:
            release.set()

    run_virtual(run(), patience_s=0.2)


def test_closing_waits_for_hooks() -> None:
    """A hook that is at work when the road closes is seen through."""

    async def main() -> None:
        done: list[str] = []
        started = threading.Event()

        def hook(record: CallRecord) -> None:
            started.wait(30)
            done.append(record.call.call_id)

        world = World()
        world.road.recorder.hooks.append(hook)
        reply = await world.ask("q")
        asyncio.get_running_loop().call_later(0.02, started.set)
        await world.road.aclose()
        assert done == [reply.call_id]

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------------- recordings


def test_texts_are_recorded_only_where_that_is_on() -> None:
    """Off, no text is kept anywhere but in the cache; on, prompt, parameters and answer of each call are, hits included."""

    async def run() -> None:
        world = World(FakeProvider(default="an answer"))
        await world.ask("private")
        assert not world.recordings.newest(10)
        world.configure(recordings=True)
        asked = await world.ask("q", temperature=0.0, seed=0, logprobs=True)
        hit = await world.ask("q", temperature=0.0, seed=0, logprobs=True)
        fast = await world.door("q", temperature=0.0, seed=0, logprobs=True)
        kept = [world.recordings.get(reply.call_id) for reply in (asked, hit, fast)]
        for recording in kept:
            assert recording is not None
            assert recording.prompt == {
                "messages": ({"role": "user", "content": "q"},),
                "temperature": 0.0,
                "seed": 0,
                "logprobs": True,
            }
            assert recording.answer["text"] == "an answer"
            assert recording.model == "one/m"
        assert [r.answer["source"] for r in kept if r is not None] == ["model", "cache", "cache"]
        await world.close()

    run_virtual(run())


def test_failed_calls_record_no_texts() -> None:
    """There is no answer to keep beside the prompt."""

    async def run() -> None:
        world = World(FakeProvider(errors.BadParameter("no", status=400)), settings={"recordings": True})
        await outcome(world.ask("q"))
        assert not world.recordings.newest(10)
        await world.close()

    run_virtual(run())


@pytest.mark.parametrize("door", ["ask", "door"])
def test_a_recording_that_fails_costs_no_answer(door: str) -> None:
    """Losing a recording is no reason to lose the answer that it was of."""

    async def run() -> None:
        class Broken(MemoryRecordings):
            def keep(self, recording: Recording) -> None:
                raise errors.StorageError("The disk is full.")

        world = World(FakeProvider(default="fine"), recordings=Broken(), settings={"recordings": True})
        for _ in range(2):
            assert (await getattr(world, door)("q")).text == "fine"
        await world.close()

    run_virtual(run())
