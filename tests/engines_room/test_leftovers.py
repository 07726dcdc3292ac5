"""Whoever is killed, and whoever holds a pipe: no process, no zombie and no question of an engine goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nbllm.engines import Plan, start, supervisor
from nbllm.engines.watch import Rhythm
from nbllm.errors import EngineFailed
from tests.engines_room.processes import linux_only, marked, until, wait_until_gone
from tests.starvation import Stopwatch

MakePlan = Callable[..., Plan]


@linux_only
@pytest.mark.parametrize("after_start", [True, False], ids=["runs", "starts"])
def test_a_killed_supervisor_leaves_none_of_the_engines_children(
    fake: MakePlan, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_start: bool
) -> None:
    """Kill -9 of the supervisor: the engine and three children that left its session are gone, and it is said what happened."""

    def kill() -> None:
        until(lambda: len(marked(mark)) >= 7)
        (supervisor,) = [pid for pid in marked(mark) if b"supervisor.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(supervisor, signal.SIGKILL)

    if after_start:
        engine = start(fake("stubborn"))
        kill()
        until(lambda: engine.state == "ended")
        assert "ended from outside" in engine.status().trouble
    else:
        killing = threading.Thread(target=kill)
        killing.start()
        with pytest.raises(EngineFailed, match="ended from outside"):
            start(fake("stubborn", health="/nothing", first_answer_s=60.0), timeout_s=20.0)
        killing.join()
    wait_until_gone(mark, 5.0)
    until(lambda: not list(tmp_path.glob("nbllm-engine-*")))


@linux_only
def test_who_is_between_two_parents_is_not_forgotten(tmp_path: Path) -> None:
    """A look at all processes may see an orphan below neither parent, old or new: while there is a child, it looks again."""
    script = (
        "import signal, subprocess, sys\n"
        "from nbllm.engines import supervisor\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])\n"
        "tree = supervisor.Tree(child)\n"
        "seen, below = [], supervisor.below\n"
        "supervisor.below = lambda root: below(root) if len(seen) > 2 else seen.append(root) or []\n"
        "print(tree._signalled(signal.SIGKILL, 5.0, again=True), child.returncode)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("True -9", "")


@linux_only
def test_a_pipe_that_somebody_else_holds_too_does_not_keep_it_running(fake: MakePlan, mark: str) -> None:
    """A child that was forked during the start holds the pipe: the end is said in words as well."""
    engine = start(fake("slow"))
    pipe = engine._process._process.stdin if engine._process else None
    assert pipe is not None
    held = os.dup(pipe.fileno())
    watch = Stopwatch(others=True)
    try:
        engine.stop()
    finally:
        os.close(held)
    assert watch.s < 2.0
    assert marked(mark) == []


def test_a_dead_engines_port_is_asked_no_more(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have it by now: the watch ends with the engine."""
    engine = start(fake("dies_later", idle_probe=True), rhythm=Rhythm(every_s=0.05, limit_s=0.5))
    until(lambda: engine.state == "ended")
    watching = engine._watch._thread
    assert watching is not None
    until(lambda: not watching.is_alive())
    engine.stop()


@linux_only
def test_a_supervisor_that_has_ended_is_no_zombie(fake: MakePlan, mark: str) -> None:
    """An engine that died by itself leaves not even an entry in the list of processes."""
    engine = start(fake("dies_later"))
    until(lambda: engine.state == "ended")
    supervisor = engine._process._process.pid if engine._process else 0
    until(lambda: not Path(f"/proc/{supervisor}").exists())
    engine.stop()


@pytest.mark.parametrize("held", [False, True], ids=["by nobody", "by a child"])
def test_last_words_that_come_late_are_waited_for_where_nothing_holds_the_pipe(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads the pipe may be late on a busy machine; a child that lives on would hold it for ever."""
    monkeypatch.setattr(supervisor, "LATE_WORDS_S", 30.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    tree = supervisor.Tree(ended)
    tree.exit_code = 0
    monkeypatch.setattr(supervisor.Tree, "left", lambda _: [1] if held else [])
    written = threading.Event()
    pump = threading.Thread(target=written.wait, args=(30,), daemon=True)
    pump.start()
    threading.Timer(supervisor.LAST_WORDS_S + 0.2, lambda: None if held else written.set()).start()
    supervisor._last_words(pump, tree)
    assert pump.is_alive() is held
    written.set()
    pump.join(30)
