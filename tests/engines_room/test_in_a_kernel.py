"""%serve in a real kernel: its interrupts and its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines_room.processes import linux_only, marked, wait_until_gone
from tests.notebook.kernel import Kernel, running_kernel

pytestmark = [linux_only, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]
MARK = f"NBLLM_TEST_MARK=real-kernel-{os.getpid()}"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel with the extension loaded, its processes marked."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(*MARK.split("="))
    try:
        with running_kernel(tmp_path) as made:
            assert made.run("%load_ext nbllm\nimport time") == "ok"
            yield made
    finally:
        wait_until_gone(MARK, 5.0)


def test_an_interrupt_does_not_reach_a_running_engine_and_a_kill_ends_it(kernel: Kernel) -> None:
    """The stop button ends the cell, the server goes on answering; kill -9 of the kernel leaves nothing after 5 s."""
    assert kernel.run("%serve start sim small") == "ok"
    assert kernel.run("%%llm -m sim-server/small -o a\nSay hello.") == "ok"
    before = set(marked(MARK))
    # Only once the cell itself runs: an interrupt before is the kernel's own, and then no answer comes.
    stopped = kernel.run(
        "print('runs', flush=True); time.sleep(30)", interrupt_when=lambda message: message["msg_type"] == "stream"
    )
    assert stopped == "error"
    assert set(marked(MARK)) == before
    assert kernel.run("%%llm -m sim-server/small --cache off -o b\nSay hello.") == "ok"
    assert kernel.value("a.text == b.text") == "True"
    kernel.manager.provisioner.process.kill()
    wait_until_gone(MARK, 5.0)


def test_an_interrupt_of_the_start_leaves_nothing_and_says_so(kernel: Kernel, tmp_path: Path) -> None:
    """A start that takes too long is stopped like any cell; the kernel goes on."""
    code = (
        "from nbllm.engines.catalog import ENGINES\n"
        "from dataclasses import replace\n"
        "ENGINES['sim-server'] = replace(ENGINES['sim-server'], health='/not-there')"
    )
    assert kernel.run(code) == "ok"
    before = set(marked(MARK))
    assert kernel.run("%serve start sim small", interrupt_when=lambda message: "loading" in str(message["content"])) == "error"
    (error,) = kernel.of("error")
    assert "the start of Simulated server was stopped; nothing of it is left" in "\n".join(error["traceback"])
    assert set(marked(MARK)) == before
    assert kernel.value("1 + 1") == "2"
