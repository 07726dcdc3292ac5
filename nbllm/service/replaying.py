"""What runs in the service's process of a comparison: the app as it is, over HTTP, with recorded answers for models."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

import nbllm.service
from nbllm.replayed import RecordedAnswers
from nbllm.service import app as service_app
from nbllm.service.configuration import Tier, load_service
from nbllm.service.parity import RunTrace
from nbllm.service.recorded import RecordedRun
from nbllm.service.replay import MARK, settings_for
from nbllm.service.tracing import TracingClient

_START_S = 60.0
_ANSWER_S = 300.0


def main() -> None:
    """Read a task from stdin, do it, and write what was seen to stdout."""
    task = json.loads(sys.stdin.read())
    sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - what reads from a person finds nobody
    key = os.environ["NBLLM_SERVICE_KEY"] = secrets.token_urlsafe(32)
    os.environ.pop("NBLLM_SERVICE_KEYS_FILE", None)
    around = tuple(task["around"])
    runs = [RecordedRun(run["flow"], run["arguments"], tuple(run["calls"]), around=around) for run in task["runs"]]
    folder = Path(task["folder"])
    answers = RecordedAnswers()
    with TracingClient(settings_for(load_service(folder / "settings.toml")[0], runs), Path(task["home"]), answers) as client:
        app = _app(folder, client)
        server = Served(app)
        try:
            replay = Replay(server.port, key, client, answers)
            flows = set(app.state.service.flows)
            passes = [
                [(replay.run(run) if run.flow in flows else run.trace()).as_json() for run in runs] for _ in range(task["passes"])
            ]
        finally:
            server.stop()
    unknown = sorted({run.flow for run in runs} - flows)
    sys.stdout.write(f"\n{MARK}{json.dumps({'passes': passes, 'unknown': unknown}, default=str)}\n")
    sys.stdout.flush()


def _app(folder: Path, client: TracingClient) -> Any:
    """Return the app of app.py, made with our client: create_app is handed it, whatever the file passes."""
    made = service_app.create_app

    def with_client(*args: Any, **named: Any) -> Any:
        app = made(*args, **{**named, "client": client})
        service = app.state.service
        # Replaying asks as fast as it can: limits on a minute are not what is compared.
        service.config = replace(service.config, tiers={"default": Tier(requests_per_minute=None, streams=None)})
        return app

    nbllm.service.create_app = service_app.create_app = with_client
    sys.path.insert(0, str(folder))
    import importlib

    return importlib.import_module("app").app


class Served:
    """An app on a free port of the loopback, on a thread of its own."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on", ws="none")
        self._server = uvicorn.Server(config)
        # In this context, as `nbllm serve` does: options that a module set when it was imported may hang on it (decimal, numpy).
        run = copy_context().run
        self._thread = threading.Thread(target=run, args=(self._server.run,), name="nbllm-parity-service", daemon=True)
        self._thread.start()
        end_s = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end_s:
                raise RuntimeError("The service did not start.")
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._thread.join(10)


class Replay:
    """Runs recorded arguments through the service."""

    def __init__(self, port: int, key: str, client: TracingClient, answers: RecordedAnswers) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._client = client
        self._answers = answers

    def run(self, run: RecordedRun) -> RunTrace:
        """Send one request and return what came of it."""
        self._answers.begin(run.calls, run.around)
        status, body = self._post(f"/flows/{run.flow}", run.arguments)
        calls = self._client.traces.take()
        if status == 200:
            return RunTrace(flow=run.flow, arguments=run.arguments, calls=calls, result=body)
        return RunTrace(flow=run.flow, arguments=run.arguments, calls=calls, error=f"HTTP {status}: {_said(body)}")

    def _post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)
        try:
            connection.request("POST", path, json.dumps(body).encode(), self._headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode("utf-8", "replace")


def _said(body: Any) -> str:
    """Return what a problem says."""
    if not isinstance(body, Mapping):
        return str(body)[:300]
    parts: Sequence[Any] = [body[name] for name in ("title", "detail") if body.get(name)]
    return " ".join(map(str, parts))[:300]


if __name__ == "__main__":
    main()
