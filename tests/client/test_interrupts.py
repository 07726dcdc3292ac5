"""Ctrl-C at any moment: upstream is closed within a second, the row says what came, and the client goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from nbllm import Client, errors
from nbllm.core.messages import AttemptStatus, Delta
from nbllm.live import DeltaEvent
from nbllm.testing import FakeProvider, Script
from tests import fault_behaviours as f
from tests.client.helpers import check_sent, fake_client, our_threads, rows, until
from tests.client.interrupting import Interrupt
from tests.fault_server import FaultServer
from tests.road.invariants import check_money, check_nothing_left, endpoint
from tests.starvation import Stopwatch, within

DOORS: dict[str, Callable[[Client, str], object]] = {
    "ask": lambda client, prompt: client.ask(prompt),
    "ask, hit": lambda client, _: client.ask("known"),
    "ask with a schema": lambda client, prompt: client.ask(prompt, schema={"type": "string"}),
    "stream": lambda client, prompt: list(client.stream(prompt)),
    "stream, hit": lambda client, _: list(client.stream("known")),
    "start": lambda client, prompt: client.start(prompt).reply,
    "embed": lambda client, prompt: client.embed([prompt]),
    "spent": lambda client, _: client.spent_session_usd(),
}


@pytest.mark.parametrize("door", DOORS)
def test_at_every_step(door: str, tmp_path: Path) -> None:
    """Whatever step of the caller's thread an interrupt hits, the call ends, nothing hangs, and the next call works."""
    fake = FakeProvider(
        default=lambda wire: Script(pieces=('"a ', "b ", 'c"'), gap_s=0.0005) if hasattr(wire.content, "messages") else ""
    )
    with fake_client(tmp_path, fake) as client:
        client.ask("known")
        DOORS[door](client, "warm")
        step = 0
        interrupted = True
        while interrupted:
            step += 1
            interrupt = Interrupt(step)
            watch = Stopwatch()
            interrupted = interrupt.run(lambda: DOORS[door](client, f"step {step}"))  # noqa: B023 - it runs now
            if step % 5 == 0:
                assert in_time(lambda: client.ask(f"probe {step}")), f"stuck after {interrupt.where}"  # noqa: B023
            assert watch.s < 2, f"slow after {interrupt.where}"
        assert step > 5, "there were steps to interrupt"
        assert fake.in_flight == 0
        assert {row.status.value for row in rows(client)} <= {"done", "cancelled"}
        assert all(line.reserved_usd == 0 for line in client.budget_lines())
    assert our_threads() == []


def in_time(work: Callable[[], object]) -> bool:
    """Do it on another thread; whether it was done within 30 s."""
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
    thread.start()
    thread.join(30)
    return bool(done)


def first_steps_of_a_client(home: Path, fake: FakeProvider, step: int) -> tuple[Interrupt, Client, bool]:
    """Make a client, and interrupt its very first call at a step."""
    client = fake_client(home, fake)
    interrupt = Interrupt(step)
    return interrupt, client, interrupt.run(lambda: client.ask("hello"))


def test_while_everything_is_opened(tmp_path: Path) -> None:
    """An interrupt of the very first call, in the middle of opening threads and files, leaves a client that works and closes."""
    step, interrupted = 0, True
    while interrupted:
        step += 7  # there are thousands
        interrupt, client, interrupted = first_steps_of_a_client(tmp_path / str(step), FakeProvider(), step)
        assert in_time(lambda: client.ask("again")), f"stuck after {interrupt.where}"  # noqa: B023 - it runs now
        assert in_time(lambda: client.close() or True), f"cannot be closed after {interrupt.where}"  # noqa: B023
        assert our_threads() == [], f"left over after {interrupt.where}"
    assert step > 100


posix = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system has no signals to send to a thread")


def interrupted(work: Callable[[], object], *after_s: float, when: Callable[[], object] = lambda: True) -> Stopwatch:
    """Do the work, and press Ctrl-C once or twice, so many seconds after `when` is true; return a watch since that had ended it."""
    here, counts = threading.get_ident(), [True]

    def hear(*_: object) -> None:
        if counts:
            raise KeyboardInterrupt

    def press() -> None:
        until(when)
        for pause in (after_s[0], *(later - before for before, later in pairwise(after_s))):
            time.sleep(pause)
            signal.pthread_kill(here, signal.SIGINT)

    def ended() -> Stopwatch:
        counts.clear()  # what comes late ends nothing of the test
        return Stopwatch()

    presser = threading.Thread(target=press)
    usual = signal.signal(signal.SIGINT, hear)
    try:
        try:
            presser.start()
            work()
            time.sleep(30)
        except KeyboardInterrupt:
            watch = ended()
        else:
            raise AssertionError("no interrupt came through")
    except KeyboardInterrupt:  # the second one, at this very moment
        watch = ended()
    finally:
        presser.join()
        signal.signal(signal.SIGINT, usual)
    return watch


def take(client: Client, door: str, pieces: list[str]) -> None:
    """Make a call by a door, and keep what comes."""
    if door == "ask":
        client.ask("hello")
    elif door == "stream":
        pieces.extend(client.stream("hello"))
    else:
        pieces.extend(event.delta.text for event in client.start("hello").events() if isinstance(event, DeltaEvent))


@posix
@pytest.mark.parametrize("door", ["ask", "stream", "events"])
@pytest.mark.parametrize("after_ms", [0, 3, 10, 25, 60, 110, 160, 230])
def test_a_real_signal(door: str, after_ms: int, tmp_path: Path) -> None:
    """SIGINT at many moments of a call that would go on for ever: closed upstream within a second, cancelled in the ledger."""
    with FaultServer() as server:
        server.script("m", [f.stall() if door == "ask" else f.drip(pace_s=0.02)])
        with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            client.ask("warm", model="lab/other")
            pieces: list[str] = []
            with within(after_ms / 1000 + 0.5, others=True):
                stopped = interrupted(lambda: take(client, door, pieces), after_ms / 1000)
            if server.count("m"):
                assert server.wait_closed(stopped) < 1.0
            # An interrupt between two steps drops the stream; its call is cancelled by nobody's leave, and closed in a moment.
            with within(1.0, others=True):
                until(lambda: all(row.status is not AttemptStatus.OPEN for row in rows(client)))
            for call in rows(client)[1:]:
                assert (call.status, call.error) == (AttemptStatus.CANCELLED, "CancelledError")
                for attempt in client.ledger.attempts(call.call_id):
                    assert attempt.status is AttemptStatus.CANCELLED
                    assert attempt.cost_basis == ("estimated" if attempt.sent else "exact")
                    assert attempt.cost_usd is not None
                    assert (attempt.cost_usd > 0) == bool(attempt.sent), "never a silent 0"
                    assert (attempt.usage.output_tokens or 0) >= len(pieces), "what came is billed"
            check_sent(client, server, {"lab/m": "m"})
            check_money(client)
            assert client.ask("and now?", model="lab/other").text == "One two three four five."
        check_nothing_left(server)


@posix
def test_twice(tmp_path: Path) -> None:
    """A second Ctrl-C while the first one is still closing changes nothing: the call ends, the client goes on."""
    fake = FakeProvider(Script(hang=True))
    with fake_client(tmp_path, fake) as client:
        interrupted(lambda: client.ask("hello"), 0.05, 0.0505, when=lambda: fake.in_flight)
        assert client.ask("again").text == "ok"
        assert fake.in_flight == 0
        # Nobody waits for the row of a call that was given up twice.
        until(lambda: [row.status.value for row in rows(client)] != ["open", "done"])
        assert [row.status.value for row in rows(client)] == ["cancelled", "done"]


def test_partial_answer_of_an_interrupted_call(tmp_path: Path) -> None:
    """What came before the interrupt is kept, marked, and priced; the reply of the stopped call is an error that holds it."""
    fake = FakeProvider(Script(pieces=(Delta(reasoning="Hm. "), "One ", "two "), hang=True))
    with fake_client(tmp_path, fake) as client:
        live = client.start("hello")
        events = live.events(0.01)
        while not (isinstance(event := next(events), DeltaEvent) and event.delta.text == "One "):
            pass
        until(lambda: fake.in_flight)
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt)
        partial = live.partial_reply()
        assert (partial.text, partial.reasoning, partial.interrupted) == ("One two ", "Hm. ", True)
        assert (partial.rung, partial.source, partial.finish_reason) == ("sim/small", "model", None)
        assert (partial.cost_basis, partial.cost_usd > 0) == ("estimated", True)
        assert partial.usage.estimated
        with pytest.raises(errors.CallFailed, match="stopped") as caught:
            assert live.reply
        assert caught.value.partial is not None
        assert caught.value.partial.text == "One two "
        assert caught.value.call_id == rows(client)[0].call_id
        assert not list(client.store.entries()), "a partial answer is not kept in the cache"
