"""Starting, failing to start, and what is seen of an engine while it runs."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm.engines import EngineEvent, Plan, attach, running, start
from nbllm.engines.supervised import free_port
from nbllm.engines.watch import Rhythm
from nbllm.errors import EngineFailed, EngineNotPossible, EngineWedged
from tests.engines_room.processes import linux_only, marked, wait_until_gone
from tests.starvation import Stopwatch

MakePlan = Callable[..., Plan]

QUICK = Rhythm(every_s=0.05, limit_s=0.2)


def test_an_engine_that_loads_slowly_is_waited_for_and_shown(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it loads its stage, the time and its last line are told; it is ready after it has completed a token."""
    monkeypatch.setenv("FAKE_WAIT_S", "1.2")
    events: list[EngineEvent] = []
    with start(fake("slow"), events.append) as engine:
        assert engine.state == "ready"
        assert running() == [engine]
    stages = [event.stage for event in events]
    assert stages[0] == "launched"
    assert stages[-2:] == ["first answer", "ready"]
    assert any(event.line.startswith("Loading shard") for event in events)
    said = [line for event in events for line in event.lines]
    assert said == sorted(set(said)) == [f"Loading shard {n}/3" for n in (1, 2, 3)]
    assert [event.elapsed_s for event in events] == sorted(event.elapsed_s for event in events)


def test_an_engine_without_memory_says_so_within_two_seconds(fake: MakePlan) -> None:
    """A failed start is told in a few lines of the engine's own, with what to do, soon after its death."""
    watch = Stopwatch(others=True)
    with pytest.raises(EngineFailed, match="it ran out of memory") as caught:
        start(fake("oom"))
    assert watch.s < 2.0
    assert (caught.value.reason, caught.value.exit_code) == ("out_of_memory", 1)
    assert "CUDA out of memory. Tried to allocate 20.00 GiB" in str(caught.value)
    assert "--max-model-len" in caught.value.hint
    assert len(str(caught.value).splitlines()) <= 6
    assert "Loading weights" in caught.value.log_tail


def test_a_port_that_is_asked_for_and_taken_is_refused_before_the_launch(fake: MakePlan) -> None:
    """Nothing is started on a port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(EngineNotPossible, match="is taken"):
            start(fake("slow", port=other.getsockname()[1]))


def test_a_port_that_is_taken_meanwhile_is_said_and_another_one_is_tried(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who was quicker costs one more launch when any port would do, and is named when one was asked for."""
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        free = free_port()
        ports = iter([taken, free])
        monkeypatch.setattr("nbllm.engines.launch.free_port", lambda: next(ports))
        with start(fake("slow")) as engine:
            assert engine.endpoint.base_url.endswith(f":{free}/v1")
        monkeypatch.setattr("nbllm.engines.launch._wanted", lambda port: port)
        with pytest.raises(EngineFailed, match="its port is taken") as caught:
            start(fake("slow", port=taken))
        assert caught.value.reason == "port_taken"


def test_health_without_a_completion_is_not_readiness(fake: MakePlan) -> None:
    """A server that answers /health and completes nothing is told as wedged, and ended."""
    with pytest.raises(EngineWedged, match=r"did not complete one token within 0\.3 s"):
        start(fake("healthy_only", first_answer_s=0.3))
    assert running() == []


def test_a_server_with_another_model_is_not_ready(fake: MakePlan) -> None:
    """The name must be in /v1/models; what is there instead is named."""
    with pytest.raises(EngineFailed, match="has no model 'tiny'; it has another"):
        start(fake("no_model"))


def test_an_engine_that_stops_completing_is_shown_as_wedged(fake: MakePlan) -> None:
    """The watch sees it although /health goes on answering, and the status says so."""
    with start(fake("wedges_later", idle_probe=True), rhythm=QUICK) as engine:
        end_s = time.monotonic() + 30
        while engine.state != "wedged" and time.monotonic() < end_s:
            time.sleep(0.02)
        status = engine.status()
    assert status.state == "wedged"
    assert "completes nothing" in status.trouble


def test_the_rhythm_sees_a_wedged_engine_within_thirty_seconds() -> None:
    """By default a look and the wait for its answer take less than 30 s together."""
    usual = Rhythm()
    assert usual.every_s + usual.limit_s + 2 <= 30


def test_an_engine_that_dies_later_says_why(fake: MakePlan) -> None:
    """Its status holds its own last words; its name is free for another one."""
    plan = fake("dies_later")
    engine = start(plan)
    end_s = time.monotonic() + 30
    while engine.state != "ended" and time.monotonic() < end_s:
        time.sleep(0.02)
    assert "exit code 3" in engine.status().trouble
    assert "the device is gone" in engine.status().trouble
    with start(plan) as again:
        assert again is not engine


def test_a_second_engine_of_one_name_is_refused(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines cannot be one endpoint."""
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    plan = fake("slow")
    with start(plan), pytest.raises(EngineNotPossible, match="fake runs already"):
        start(plan)


def test_the_key_guards_the_server_and_shows_nowhere(fake: MakePlan) -> None:
    """A random key goes through the environment; it is in no argument, log line, text or error."""
    with start(fake("loud")) as engine:
        key = engine.endpoint.api_key
        assert key is not None
        assert len(key) >= 40
        tail = engine.log_tail()
        assert tail == ["my key is [redacted]"]
        assert key not in repr(engine) + repr(engine.endpoint) + str(engine.status())
        if (words := Path(f"/proc/{engine.pid}/cmdline")).exists():
            assert key not in words.read_text()


@linux_only
def test_an_engine_does_not_see_the_keys_of_providers(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the environment for providers is no business of an engine; the hub's token is."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-engines-0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_for_the_models_0123456789")
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    with start(fake("slow")) as engine:
        environ = Path(f"/proc/{engine.pid}/environ").read_text()
    assert "sk-not-for-engines" not in environ
    assert "hf_for_the_models" in environ


def test_the_address_is_the_loopback_and_the_identity_knows_no_port(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two starts on two ports have one identity, so that cached answers are found again."""
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    seen = []
    for _ in range(2):
        with start(fake("slow")) as engine:
            seen.append((engine.endpoint.base_url, engine.endpoint.identity))
    (first, identity), (second, same) = seen
    assert first != second
    assert identity == same == "engine:fake:tiny@"
    assert first.startswith("http://127.0.0.1:")


def test_the_status_reads_the_metrics_and_counts_the_dollars(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests come from the page by the names of the table, dollars from what an hour costs."""
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    plan = fake("slow")
    object.__setattr__(plan, "usd_per_hour", 3.6)
    with start(plan) as engine:
        status = engine.status()
    assert (status.running, status.waiting, status.usd_per_hour) == (1, None, Decimal("3.6"))
    assert status.usd_per_mtok is None  # two moments make a pace
    assert engine.status().state == "stopped"


@linux_only
def test_an_interrupt_during_the_start_leaves_nothing(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it loads comes through, and the engine is gone."""
    mark = f"NBLLM_TEST_MARK=interrupted-{os.getpid()}"
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setenv("FAKE_WAIT_S", "60")
    plan, came = fake("slow"), threading.Event()

    def press() -> None:
        for pause_s in (
            0.6,
            10,
            10,
        ):  # one that comes where exceptions are lost, as in a finalizer, is pressed again by a person, too
            if not came.wait(pause_s):
                _thread.interrupt_main()

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=press, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    finally:
        came.set()
        signal.signal(signal.SIGINT, usual)
    wait_until_gone(mark, 5.0)


@linux_only
def test_stubborn_children_are_ended_by_stop(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that ignore TERM, leave group and session, or are orphans: gone within 5 s of stop."""
    mark = f"NBLLM_TEST_MARK=stubborn-{os.getpid()}"
    monkeypatch.setenv(*mark.split("="))
    engine = start(fake("stubborn"))
    end_s = time.monotonic() + 30
    while len(marked(mark)) < 7 and time.monotonic() < end_s:  # the engine, and three children, two of them with one of their own
        time.sleep(0.02)
    assert len(marked(mark)) >= 6
    watch = Stopwatch(others=True)
    engine.stop()
    wait_until_gone(mark, 0.5)
    assert watch.s < 5.0


def test_a_server_that_runs_already_is_attached(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any server with a model that completes can be taken; stopping lets go of it and does not end it."""
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    with start(fake("slow", key_env="")) as engine:
        mine = attach(engine.endpoint.base_url, name="lab", usd_per_hour=1)
        assert (mine.model, mine.state, mine.pid) == ("lab/tiny", "ready", None)
        assert mine.status().running == 1
        mine.stop()
        assert engine.state == "ready"
        with pytest.raises(EngineFailed, match="has no model 'other'; it has tiny"):
            attach(engine.endpoint.base_url, model="other")


def test_an_attached_server_that_goes_away_is_shown_as_silent(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody watches it, so its status asks."""
    monkeypatch.setenv("FAKE_WAIT_S", "0")
    with start(fake("slow", key_env="")) as engine:
        mine = attach(engine.endpoint.base_url, name="lab")
    status = mine.status()
    mine.stop()
    assert (status.state, status.running, status.trouble) == ("silent", None, "It does not answer.")


def test_attaching_to_nothing_says_so() -> None:
    """An address where nobody listens is named."""
    with pytest.raises(EngineFailed, match=r"The server at 127\.0\.0\.1:9 does not answer"):
        attach("http://127.0.0.1:9/v1")
