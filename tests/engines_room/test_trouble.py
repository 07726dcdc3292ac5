"""Engines that die, hang or wedge: what is said, how soon, and that nothing is left."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from nbllm.engines import Engine, Plan, attach, plan_launch, running, start
from nbllm.engines.door import Door, TooLate
from nbllm.engines.reasons import reason_of
from nbllm.engines.watch import Rhythm
from nbllm.errors import EngineFailed, EngineNotPossible, EngineWedged
from tests.engines_room.conftest import FAKE
from tests.engines_room.processes import linux_only, marked, until, wait_until_gone
from tests.starvation import Stopwatch

MakePlan = Callable[..., Plan]


@linux_only
def test_stubborn_children_do_not_keep_the_reason_back(
    fake: MakePlan, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that dies and leaves children which ignore TERM: its reason is told within 2 s, and they are gone by then."""
    monkeypatch.setenv("FAKE_NOTE", str(tmp_path / "died"))
    with pytest.raises(EngineFailed, match="it ran out of memory"):
        start(fake("oom_with_children"))
    assert time.monotonic() - float((tmp_path / "died").read_text()) < 2.0
    assert marked(mark) == []
    assert list(tmp_path.glob("nbllm-engine-*")) == []


def test_the_cause_is_found_far_above_the_last_words(fake: MakePlan) -> None:
    """Three processes, three tracebacks: the first holds the cause, and it is shown once."""
    with pytest.raises(EngineFailed, match="it ran out of memory") as caught:
        start(fake("oom_far_above"))
    assert str(caught.value).count("Tried to allocate 20.00 GiB") == 1
    assert "pid=17" not in str(caught.value)
    assert "raise RuntimeError" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ImportError: libcuda.so.1: cannot open shared object file: No such file or directory", "no_gpu"),
        ("(EngineCore pid=3) INFO 11-21 14:32:05 [core.py:9] config: trust_remote_code=False, revision=None", "unknown"),
        ("WARNING 11-21 14:32:05 [x.py:1] ImportError: flash_attn is not there, another one is used", "unknown"),
        ("error loading model: failed to open gguf", "no_such_model"),
        ("RuntimeError: Unable to allocate: out of memory", "out_of_memory"),
    ],
)
def test_a_reason_is_an_error_and_not_what_is_said_on_the_way(line: str, code: str) -> None:
    """Lines that tell options, or warn, are no reason; a missing driver is no missing model."""
    assert reason_of(["Loading ...", line], 1).code == code


def test_the_end_by_a_signal_is_named() -> None:
    """-9 is SIGKILL to people."""
    assert reason_of(["Loading"], -9).how == " (ended by SIGKILL)"
    assert reason_of([], 3).how == " (exit code 3)"
    assert reason_of([], None).how == ""


def test_a_server_that_hangs_on_health_is_waited_for_no_longer_than_asked(fake: MakePlan, mark: str, tmp_path: Path) -> None:
    """It takes connections and answers nothing: the time that a start may take ends it, and it."""
    watch = Stopwatch(others=True)
    with pytest.raises(EngineFailed, match="did not become ready in time"):
        start(fake("silent"), timeout_s=0.5)
    assert watch.s < 5.0
    assert marked(mark) == []
    assert list(tmp_path.glob("nbllm-engine-*")) == []


def test_a_server_that_is_healthy_and_hangs_on_all_else_is_wedged(fake: MakePlan) -> None:
    """Not only a completion that never comes: a list of models that never comes is seen as soon."""
    watch = Stopwatch(others=True)
    with pytest.raises(EngineWedged, match=r"did not complete one token within 0\.5 s"):
        start(fake("hangs", first_answer_s=0.5))
    assert watch.s < 5.0


def test_a_healthy_server_without_models_is_not_waited_for(fake: MakePlan) -> None:
    """It has said what it says: the start does not go on for half an hour."""
    with pytest.raises(EngineFailed, match="does not list its models: 404 what models"):
        start(fake("no_list", first_answer_s=8.0))  # that long it is asked


def test_a_wedge_is_seen_within_thirty_seconds_by_default() -> None:
    """From /health to the first token, and while it runs: the moment right after a look that still saw tokens is counted in."""
    assert Rhythm().seen_s < 30
    assert plan_launch("sim", "large").kind.first_answer_s < 30


def test_a_server_that_hangs_altogether_is_stopped_in_time(fake: MakePlan, mark: str) -> None:
    """The watch waits for an answer that does not come: the end does not wait for the watch."""
    engine = start(fake("hangs_later", idle_probe=True), rhythm=Rhythm(every_s=0.01, limit_s=20.0))
    until(lambda: engine.status().state in {"ready", "silent"})
    watch = Stopwatch(others=True)
    engine.stop()
    assert watch.s < 1.5
    assert marked(mark) == []


@linux_only
def test_an_engine_that_dies_later_leaves_no_process_and_no_file(fake: MakePlan, mark: str, tmp_path: Path) -> None:
    """Its supervisor goes too, at once, and its last words are kept."""
    engine = start(fake("dies_later"))
    until(lambda: engine.state == "ended")
    wait_until_gone(mark, 5.0)
    until(lambda: not list(tmp_path.glob("nbllm-engine-*")))
    assert "the device is gone" in engine.status().trouble
    assert "exit code 3" in engine.status().trouble


def test_a_program_that_cannot_be_run_leaves_no_file(fake: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no program: said, and the folder with its key is gone."""
    program = tmp_path / "engine"
    program.write_text("no program")
    program.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(EngineFailed, match=r"could not be started: .*Exec format"):
        start(fake("slow", program=str(program), key_env="", key_file=("--config", "key: {key}")))
    assert list(tmp_path.glob("nbllm-engine-*")) == []


def test_of_two_starts_of_one_name_at_once_one_is_refused(fake: MakePlan, mark: str) -> None:
    """Two threads, one name: one engine, and none that nobody knows of."""
    plan = fake("slow")
    begin = threading.Barrier(2)
    came: list[object] = []

    def one() -> None:
        begin.wait()
        try:
            came.append(start(plan))
        except EngineNotPossible as error:
            came.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (engine,) = [one for one in came if isinstance(one, Engine)]
    (refused,) = [one for one in came if isinstance(one, EngineNotPossible)]
    assert str(refused).startswith("fake runs already")
    assert running() == [engine]
    engine.stop()
    assert marked(mark) == []


@linux_only
def test_two_stubborn_engines_end_at_the_same_time(fake: MakePlan, mark: str) -> None:
    """Both ignore TERM for the 3 s that they have: together they take no longer than one."""
    plan = fake("stubborn")
    first, second = start(plan), start(replace(plan, name="other"))
    watch = Stopwatch(others=True)
    for engine in (first, second):
        engine.begin_stop()
    for engine in (first, second):
        engine.stop()
    assert watch.s < 5.0
    assert marked(mark) == []


@linux_only
def test_another_environments_python_does_not_see_our_paths(
    fake: MakePlan, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONPATH is for this Python; modules there would stand in front of the engine's own."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    plan = fake("slow")
    with start(plan) as engine:  # a program on PATH: part of this environment
        assert b"PYTHONPATH=" in Path(f"/proc/{engine.pid}/environ").read_bytes()
    # As with `--python`: a Python and a module, one here that runs the fake.
    other = replace(plan, command=(str(python), "-m", "cProfile", str(FAKE), "slow"))
    with start(other) as engine:
        assert b"PYTHONPATH=" not in Path(f"/proc/{engine.pid}/environ").read_bytes()


@pytest.fixture
def odd_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A listener that is no model server: it says nothing, or drips a byte now and then. Yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    while not ended.wait(0.02):
                        if request.param == "drips":
                            peer.send(b"H")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("odd_server", ["is silent", "drips"], indirect=True)
def test_no_answer_is_waited_for_longer_than_it_may_take(odd_server: str) -> None:
    """Nothing at all, and a byte now and then for ever, are both given up in time."""
    watch = Stopwatch(others=True)
    with pytest.raises(TooLate):
        Door(odd_server).ask("/health", limit_s=0.2)
    assert watch.s < 1.0


@pytest.mark.parametrize("odd_server", ["drips"], indirect=True)
def test_attaching_to_something_else_says_so(odd_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens there and is no model server is named, after seconds."""
    monkeypatch.setattr("nbllm.engines.attaching.ASK_S", 0.2)
    with pytest.raises(EngineFailed, match=r"The server at 127\.0\.0\.1:\d+ does not answer: no answer within 0\.2 s"):
        attach(odd_server)
    assert running() == []
