"""Values that are read from a disk now and then: never on the loop, never waited for in busy traffic, never trusted for long."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ConfigurationError
from nbllm.pipeline.looking import LOOK_EVERY_S, TRUST_S, Looking
from nbllm.testing import FakeProvider, run_virtual
from tests.pipeline.likening import ASKED, NEAR, NEARER, Likening
from tests.pipeline.routing import LARGE, LOGPROB, SMALL, learned, sure, world
from tests.pipeline.world import now_s


class Disk:
    """What lies there, and how long it takes to read it; `error` is raised instead."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.value, self.takes_s, self.reads = 0, takes_s, 0
        self.error: Exception | None = None

    async def look(self) -> int:
        self.reads += 1
        found, error = self.value, self.error
        await asyncio.sleep(self.takes_s)
        if error is not None:
            raise error
        return found + 1  # never 0


@given(gaps=st.lists(st.floats(0, 3), min_size=1, max_size=30), takes_s=st.floats(0, 0.5))
def test_what_is_used_is_never_older_than_it_may_be(gaps: list[float], takes_s: float) -> None:
    """Whenever calls come and whatever a read takes: it stood there two seconds and a read ago at most; one read at a time."""

    async def run() -> None:
        disk = Disk(takes_s)
        looking = Looking(disk.look, now_s)
        written = {1: 0.0}
        for gap in gaps:
            await asyncio.sleep(gap)
            asked_s = now_s()
            value = await looking.get()
            replaced_s = written.get(value + 1)
            assert replaced_s is None or asked_s - replaced_s <= TRUST_S + takes_s + 1e-9
            assert len(looking._tasks) <= 1
            disk.value += 1
            written[disk.value + 1] = now_s()
        await looking.aclose()

    run_virtual(run())


def test_busy_traffic_waits_for_no_disk() -> None:
    """A call every tenth of a second: the first one waits, then a slow disk is read behind them, about once a second."""

    async def run() -> None:
        disk = Disk(takes_s=0.7)
        looking = Looking(disk.look, now_s)
        await looking.get()
        for _ in range(100):
            await asyncio.sleep(0.1)
            began_s = now_s()
            await looking.get()
            assert now_s() == began_s
        assert 100 * 0.1 / (LOOK_EVERY_S + 0.7 + 0.2) <= disk.reads <= 1 + 100 * 0.1 / LOOK_EVERY_S
        await looking.aclose()
        assert len(asyncio.all_tasks()) == 1

    run_virtual(run())


def test_what_cannot_be_read_any_more_is_not_used() -> None:
    """A read that fails behind a call takes the value away: the next call hears of it, until reading works again."""

    async def run() -> None:
        disk = Disk()
        looking = Looking(disk.look, now_s)
        await looking.get()
        disk.error = ConfigurationError("gone")
        await asyncio.sleep(LOOK_EVERY_S)
        assert await looking.get() == 1
        await asyncio.sleep(0.001)
        for _ in range(2):
            assert looking.known() is None
            with pytest.raises(ConfigurationError, match="gone"):
                await looking.get()
        disk.error = None
        assert await looking.get() == 1

    run_virtual(run())


def test_what_was_being_read_when_it_changed_is_not_kept() -> None:
    """forget() while a read is under way: who waits for that read gets it, the next call looks anew."""

    async def run() -> None:
        disk = Disk(takes_s=0.5)
        looking = Looking(disk.look, now_s)
        early = asyncio.ensure_future(looking.get())
        await asyncio.sleep(0.1)
        disk.value = 7
        looking.forget()
        assert await looking.get() == 8
        assert await early == 1
        assert looking.known() == 8

    run_virtual(run())


def test_no_plan_file_is_touched_on_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of the semantic cache and of routes, read, read again and changed: every look is a thread's; at the fast door none."""
    touched: list[int] = []

    def spying(real: Any) -> Any:
        def spy(self: Path, *args: Any, **more: Any) -> Any:
            if self.name.endswith("plan.json"):
                touched.append(threading.get_ident())
            return real(self, *args, **more)

        return spy

    for name in ("stat", "read_text", "open"):
        monkeypatch.setattr(Path, name, spying(getattr(Path, name)))

    async def run() -> None:
        (tmp_path / "cascade").mkdir()
        likening = Likening(tmp_path / "cascade", provider=FakeProvider(default="answer"))
        routed = world({"r": learned(tmp_path)})
        touched.clear()
        for number in range(4):
            await likening.ask(f"{ASKED}{number}")
            assert (await routed.ask("hello", "r", sample=number)).rung == LARGE
            await routed.door("hello", "r", sample=number)
            await asyncio.sleep(TRUST_S * 0.6)
        assert len(touched) >= 4
        assert threading.get_ident() not in touched
        await likening.close()
        await routed.close()

    run_virtual(run())


def test_a_plan_that_another_process_takes_back_stops_serving_within_two_seconds(tmp_path: Path) -> None:
    """Asked twice a second all the time: served before, and from two seconds on the model, with one warning."""

    async def run() -> None:
        there = Likening(tmp_path, provider=FakeProvider(default="answer"))
        await there.ask(ASKED)
        assert (await there.ask(NEAR)).source == "semantic"
        there.matches.take_back("p1", "wrong too often")
        began_s, replies = now_s(), []
        while now_s() - began_s <= 3:
            replies.append((now_s() - began_s, await there.ask(f"{NEAR}{'?' * (2 + len(replies))}")))
            await asyncio.sleep(0.5)
        assert {reply.source for after_s, reply in replies if after_s >= TRUST_S} == {"model"}
        assert sum("wrong too often" in note for _, reply in replies for note in reply.notes) == 1
        await there.close()

    run_virtual(run())


def test_a_plan_that_another_process_writes_is_in_force_within_two_seconds(tmp_path: Path) -> None:
    """A stricter threshold in the file, nothing said to this process: after a pause the very next call goes by it."""

    async def run() -> None:
        there = Likening(tmp_path, provider=FakeProvider(default="answer"))
        await there.ask(ASKED)
        assert (await there.ask(NEAR)).source == "semantic"
        path = tmp_path / "plan.json"
        path.write_text(path.read_text().replace('"threshold": 0.8', '"threshold": 0.9999'))
        await asyncio.sleep(TRUST_S)
        assert (await there.ask(NEARER)).source == "model"
        await there.close()

    run_virtual(run())


def test_a_disk_that_hangs_is_shadow_and_costs_the_timeout_of_an_embedding(tmp_path: Path) -> None:
    """The plan cannot be read: the call is answered by its model, says so once, and waits half a second at most."""

    async def run() -> None:
        there = Likening(tmp_path, provider=FakeProvider(default="answer"))
        await there.ask(ASKED)
        hangs = asyncio.get_running_loop().create_future()
        there.road.semantic.plans._rows = lambda: hangs  # type: ignore[assignment, return-value]
        await asyncio.sleep(TRUST_S)
        began_s = now_s()
        reply = await there.ask(NEAR)
        assert reply.source == "model"
        assert now_s() - began_s < 0.6
        assert [note for note in reply.notes if "could not be read within 0.5 s" in note]
        await there.close()

    run_virtual(run())


def test_a_route_whose_plan_hangs_takes_its_fixed_ladder(tmp_path: Path) -> None:
    """The deadline holds, and one note says why."""

    async def run() -> None:
        route = {**LOGPROB, "min_logprob": None, "plan": str(tmp_path / "none.json")}
        there = world({"r": route}, small=sure("s", -9))
        hangs = asyncio.get_running_loop().create_future()
        there.road._plans._look = lambda _: hangs  # type: ignore[assignment, method-assign, return-value]
        began_s = now_s()
        reply = await there.ask("q", "r", deadline_s=4, cache="refresh")
        assert (reply.rung, now_s() - began_s) == (SMALL, pytest.approx(2, abs=0.1))
        assert "could not be read in time" in reply.notes[0]
        await there.close()

    run_virtual(run())
