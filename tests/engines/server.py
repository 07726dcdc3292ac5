"""A real vLLM on this CPU: start it, wait until it answers, look at its metrics, stop it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from nbllm.engines import Engine
from nbllm.engines.door import Door
from nbllm.engines.status import samples
from nbllm.engines.supervised import free_port

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-engine" / "bin" / "python"
READY_LIMIT_S = 240.0
CONTEXT_TOKENS = 4096
MODEL = "tiny"
KEY = "key-of-the-engine-suite"
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class EngineServer:
    """One vLLM server in a process group of its own."""

    def __init__(self, model_dir: Path, log: Path) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.log = log
        command = [
            *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_dir), "--served-model-name", MODEL),
            *("--host", "127.0.0.1", "--port", str(self.port), "--max-model-len", str(CONTEXT_TOKENS), "--enforce-eager"),
            # A model this small would fill every gap that JSON allows with blanks.
            *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
        ]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **QUIET, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_API_KEY": KEY},
            )

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the server something plainly; OSError when it does not answer with 200."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - http on loopback
            text = response.read().decode()
        return json.loads(text) if text.startswith("{") else text

    def wait_ready(self) -> None:
        """Wait for health, then the model's name, then one token: health alone is not readiness."""
        end = time.monotonic() + READY_LIMIT_S
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"vLLM did not become ready (exit code {self.process.poll()}):\n{tail}")
            try:
                self.request("/health")
                break
            except OSError:
                time.sleep(0.5)
        names = [model["id"] for model in self.request("/v1/models")["data"]]
        assert MODEL in names, names
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        assert self.request("/v1/chat/completions", body)["usage"]["completion_tokens"] == 1

    def metric(self, name: str, **labels: str) -> float:
        """Return a Prometheus metric, summed over the series that have these labels."""
        total = 0.0
        for line in self.request("/metrics").splitlines():
            if re.match(rf"{re.escape(name)}\{{", line) and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def finished(self) -> float:
        """Return how many requests the engine has seen to an end, aborted ones included."""
        return self.metric("vllm:request_success_total")

    def running(self) -> float:
        """Return how many requests the engine is working on."""
        return self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting")

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End the whole process group (server, engine core, workers) and wait for it."""
        try:
            os.killpg(self.process.pid, sig)
            self.process.wait(timeout=20)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=20)


def metrics_of(engine: Engine) -> dict[str, list[float]]:
    """Read the metrics page of an engine that nbllm started: name -> its values, one for each set of labels."""
    door = Door(engine.endpoint.base_url, engine.endpoint.api_key)
    return samples(door.ask(door.root("/metrics"), limit_s=10.0).body.decode())
