"""However the kernel ends, nothing of its engines is left after five seconds; its interrupts do not reach them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines_room.processes import linux_only, marked, wait_until_gone
from tests.starvation import Stopwatch

pytestmark = linux_only
ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("KERNEL_KILLS", "1"))
"""A kill takes the 3 s that stubborn processes are given: `make test-engines` does a hundred."""
AT_ONCE = 10


class Kernel:
    """A process that has started an engine. Its mark is in the environment of all that it starts."""

    count = 0

    def __init__(self, *words: str, folder: Path) -> None:
        Kernel.count += 1
        self.mark = f"NBLLM_TEST_MARK=kernel-{os.getpid()}-{Kernel.count}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engines_room.kernel", *words],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, name: value, "FAKE_WAIT_S": "0", "TMPDIR": str(folder)},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"started\n"

    def wait_for(self, count: int) -> None:
        """Wait until so many processes carry the mark."""
        end_s = time.monotonic() + 30
        while len(marked(self.mark)) < count:
            assert time.monotonic() < end_s, marked(self.mark)
            time.sleep(0.02)

    def end(self) -> None:
        """Clean up after a test that failed."""
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[object]:
    """Make kernels, and clean up after them."""
    made: list[Kernel] = []

    def one(*words: str) -> Kernel:
        made.append(Kernel(*words, folder=tmp_path))
        return made[-1]

    yield one
    for kernel in made:
        kernel.end()


@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_killed_kernel_leaves_no_stubborn_child(make: object, tmp_path: Path) -> None:
    """Kill -9 of the kernel: the engine and its three children, which ignore TERM and leave the session, are gone within 5 s."""
    for begun in range(0, KILLS, AT_ONCE):
        kernels = [make("stubborn") for _ in range(min(AT_ONCE, KILLS - begun))]  # type: ignore[operator]
        for kernel in kernels:
            kernel.wait_for(8)  # kernel, supervisor, engine, three children, two of them with a child that stays
        watches = []
        for kernel in kernels:
            kernel.process.send_signal(signal.SIGKILL)
            kernel.process.wait()
            watches.append(Stopwatch(others=True))
        for kernel, watch in zip(kernels, watches, strict=True):
            wait_until_gone(kernel.mark, 5.0 - watch.s)
    assert list(tmp_path.glob("nbllm-engine-*")) == []  # logs and keys go too


def test_a_kernel_killed_while_the_engine_loads_leaves_nothing(make: object) -> None:
    """The tie to the kernel holds from the launch on."""
    kernel = make("loading")  # type: ignore[operator]
    kernel.wait_for(3)
    kernel.process.send_signal(signal.SIGKILL)
    kernel.process.wait()
    wait_until_gone(kernel.mark, 5.0)


def test_a_forked_child_does_not_keep_the_engine_alive(make: object) -> None:
    """A child that the kernel forked, and that outlives it, holds no pipe of the engine."""
    kernel = make("slow", "fork")  # type: ignore[operator]
    kernel.wait_for(4)
    engines = set(marked(kernel.mark)) - {kernel.process.pid}
    kernel.process.send_signal(signal.SIGKILL)
    kernel.process.wait()
    end_s = time.monotonic() + 30
    while len(left := set(marked(kernel.mark)) & engines) > 1:  # the child itself stays
        assert time.monotonic() < end_s, left
        time.sleep(0.02)


def test_an_interrupt_of_the_kernel_does_not_reach_the_engine(make: object) -> None:
    """SIGINT to the kernel's process group, as Jupyter sends it, ends a call and no engine."""
    kernel = make("slow")  # type: ignore[operator]
    before = set(marked(kernel.mark)) - {kernel.process.pid}
    groups = {os.getpgid(pid) for pid in before} | {os.getsid(pid) for pid in before}
    assert len(before) == 2
    assert os.getpgid(kernel.process.pid) not in groups
    assert os.getsid(kernel.process.pid) not in groups


def test_a_killed_supervisor_takes_the_engine_along(make: object) -> None:
    """Should the supervisor itself be killed (out of memory, say), the system ends the engine."""
    kernel = make("slow")  # type: ignore[operator]
    (supervisor,) = [pid for pid in marked(kernel.mark) if b"supervisor.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(supervisor, signal.SIGKILL)
    end_s = time.monotonic() + 30
    while set(marked(kernel.mark)) != {kernel.process.pid}:
        assert time.monotonic() < end_s, marked(kernel.mark)
        time.sleep(0.02)


def test_a_kernel_that_ends_by_itself_ends_its_engines(tmp_path: Path) -> None:
    """No call of stop is needed at the end of a script."""
    mark = f"NBLLM_TEST_MARK=script-{os.getpid()}"
    code = (
        "from nbllm.engines import plan_launch, start\n"
        "from nbllm.engines.catalog import ENGINES\n"
        "from tests.engines_room.conftest import fake_kind\n"
        "ENGINES['fake'] = fake_kind('slow')\n"
        "engine = start(plan_launch('fake', 'tiny'))\n"
        "print(engine.state)\n"
    )
    name, value = mark.split("=")
    env = {**os.environ, name: value, "FAKE_WAIT_S": "0", "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "ready", "")
    wait_until_gone(mark, 5.0)
    assert tempfile.gettempdir() != str(tmp_path)
    assert list(tmp_path.glob("nbllm-engine-*")) == []
