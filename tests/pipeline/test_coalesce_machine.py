"""coalesce as a state machine: joins, leaves, cancellations, budgets and ends of runs in any order, on virtual time."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbllm import errors
from nbllm._virtual_time import VirtualTimeLoop
from nbllm.core.messages import Delta, Ending, Usage
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider
from tests.pipeline.making import Watcher
from tests.pipeline.world import World, outcome

KEYS = st.sampled_from(["a", "b"])
DEADLINES = st.sampled_from([0.5, 3.0, 300.0])


class Switchboard(FakeProvider):
    """Requests stay open until the machine ends them; at most one a key may be open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, asyncio.Future[str | Exception]] = {}
        self.most = 0

    async def send(self, wire: Any, progress: Any) -> Ending:
        key = wire.content.messages[0]["content"]
        assert key not in self.open, f"two runs of {key!r} at a time"
        end = self.open[key] = asyncio.get_running_loop().create_future()
        progress.sent()
        self.in_flight += 1
        try:
            result = await end
        finally:
            self.in_flight -= 1
            del self.open[key]
        if isinstance(result, Exception):
            raise result
        progress.delta(Delta(text=result))
        return Ending(finish_reason="stop", usage=Usage(input_tokens=1, output_tokens=1))


class Coalescing(RuleBasedStateMachine):
    """All calls are refreshes, so that no hit spares a run."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.switchboard = Switchboard()
        self.world: World = self.runner.run(self._make())
        self.waiting: list[tuple[str, asyncio.Task[Any], Watcher]] = []
        self.outcomes: list[Any] = []
        self.started = 0
        self.answers = 0

    async def _make(self) -> World:
        return World(self.switchboard, settings={"budget_session_usd": "1000"})

    def _run(self, seconds: float = 0.0) -> None:
        async def run() -> None:
            await asyncio.sleep(seconds)
            for _ in range(8):  # whatever became ready runs to its next wait
                await asyncio.sleep(0)

        self.runner.run(run())

    @rule(key=KEYS, deadline_s=DEADLINES, poor=st.booleans(), watched=st.booleans())
    def join(self, key: str, deadline_s: float, poor: bool, watched: bool) -> None:
        async def start() -> asyncio.Task[Any]:
            limit = Decimal("0.000001") if poor else None
            call = self.world.ask(
                key, deadline_s=deadline_s, budget_usd=limit, cache="refresh", retries=0, watched=watched, ttft_s=None, sink=watcher
            )
            return asyncio.get_running_loop().create_task(outcome(call))

        watcher = Watcher()
        self.waiting.append((key, self.runner.run(start()), watcher))
        self.started += 1
        self._run()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        _, task, _ = data.draw(st.sampled_from(self.waiting))
        self.loop.call_soon(task.cancel)
        self._run()

    @precondition(lambda self: self.switchboard.open)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.switchboard.open)))
        self.answers += 1
        result = errors.BadParameter("no", status=400) if fails else f"answer {self.answers}"
        self.loop.call_soon(self.switchboard.open[key].set_result, result)
        self._run()
        for waited_for, task, watcher in self.waiting:
            if waited_for == key and task.done() and isinstance(task.result(), Reply) and not fails:
                assert task.result().text == f"answer {self.answers}"
                assert watcher.texts == [f"answer {self.answers}"]

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self._run(seconds)

    @invariant()
    def every_outcome_is_one_of_its_own(self) -> None:
        over = [entry for entry in self.waiting if entry[1].done()]
        self.waiting = [entry for entry in self.waiting if not entry[1].done()]
        for _, task, _ in over:
            if task.cancelled():
                self.outcomes.append(asyncio.CancelledError())
                continue
            result = task.result()
            kinds = (Reply, errors.BadParameter, errors.DeadlineExceeded, errors.BudgetExceeded, asyncio.CancelledError)
            assert isinstance(result, kinds), result
            assert all(result is not other for other in self.outcomes), "an outcome was shared"
            self.outcomes.append(result)
        assert len(self.outcomes) + len(self.waiting) == self.started

    @invariant()
    def whoever_waits_has_a_run(self) -> None:
        for key in {key for key, _, _ in self.waiting}:
            assert key in self.switchboard.open, f"{key!r} is waited for and nobody runs it"
        assert set(self.switchboard.open) == {key for key, _, _ in self.waiting}, "a run that nobody waits for"

    @invariant()
    def money_is_reserved_for_what_runs(self) -> None:
        assert bool(self.world.reserved()) == bool(self.switchboard.open)

    def teardown(self) -> None:
        async def finish() -> None:
            for _, task, _ in self.waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task, _ in self.waiting), return_exceptions=True)
            await self.world.close()
            booked = sum(
                (a.cost_usd for a in self.world.ledger.attempts_by_id.values() if a.cost_usd is not None), start=Decimal(0)
            )
            assert booked == self.world.spent()

        self.runner.run(finish())
        self.runner.close()


Coalescing.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestCoalescing = Coalescing.TestCase
TestCoalescing.__doc__ = (
    "Every waiter gets exactly one outcome of its own, a key has at most one run, nothing stays reserved or running."
)
