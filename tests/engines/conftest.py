"""A real vLLM for the tests of this folder, or a skip that says why there is none."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm import Client, Endpoint
from nbllm.engines import Engine, EngineEvent, Plan, start
from tests.engines.server import CONTEXT_TOKENS, KEY, PYTHON, ROOT, EngineServer
from tests.engines.vllm_kernel import VllmKernel
from tests.engines_room.processes import marked
from tests.notebook.kernel import running_kernel


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama, made now."""
    reason = ROOT / "build" / "engine-unavailable.txt"
    if reason.exists():
        pytest.skip(f"no engine environment: {reason.read_text().strip()}")
    if not (PYTHON.parents[1] / ".nbllm-engine").exists():
        pytest.skip("no engine environment: `make test-engines` makes it")
    directory = tmp_path_factory.mktemp("model")
    made = subprocess.run(
        [PYTHON, ROOT / "scripts" / "tiny_model.py", directory], capture_output=True, text=True, timeout=180, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return directory


@pytest.fixture(scope="module")
def events() -> list[EngineEvent]:
    """What was told during the start of `started`."""
    return []


@pytest.fixture(scope="module")
def started(plan: Plan, events: list[EngineEvent]) -> Iterator[Engine]:
    """One engine for the tests of a file that do not end it. plan: the file's own fixture."""
    with start(plan, events.append) as engine:
        yield engine


@pytest.fixture(scope="session")
def engine(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """The server that most tests share."""
    server = EngineServer(model_dir, tmp_path_factory.mktemp("engine") / "vllm.log")
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def client(engine: EngineServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client with a home of its own whose endpoint `lab` is the server."""
    monkeypatch.setenv("ENGINE_SUITE_KEY", KEY)
    with Client(endpoints={"lab": lab(engine)}, home=tmp_path / "home") as made:
        yield made


@pytest.fixture
def vllm_kernel(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VllmKernel]:
    """A kernel in whose notebook `%serve start vllm` has started the tiny model; everything of it is marked, and ended."""
    mark = f"NBLLM_TEST_MARK=kernel-{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    try:
        with running_kernel(tmp_path) as kernel:
            flags = f"--max-model-len {CONTEXT_TOKENS} --enforce-eager --cpu-kvcache-gb 1 --offline --served-name tiny"
            assert kernel.run("%load_ext nbllm") == "ok"
            assert kernel.run(f"%serve start vllm {model_dir} --python {PYTHON} {flags}") == "ok", kernel.of("error")
            yield VllmKernel(kernel, mark)
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def lab(server: EngineServer) -> Endpoint:
    """The endpoint of a server, with prices so that costs can be looked at."""
    return Endpoint(
        base_url=server.base_url,
        api_key_env="ENGINE_SUITE_KEY",
        input_usd_per_mtok=1,
        output_usd_per_mtok=2,
        context_tokens=CONTEXT_TOKENS,
    )
