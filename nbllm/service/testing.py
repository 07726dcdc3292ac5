"""An app that is served for a test: on loopback, with a home and a key of its own, and recorded answers in place of models.

with served(app) as service:
    assert service.get("/ready").status == 200
    assert service.replay(run).json == run.result          # a run of examples.json (nbllm.service.replay.app_runs)
"""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from nbllm.replayed import RecordedAnswers
from nbllm.service.app import create_app
from nbllm.service.context import Service
from nbllm.service.keys import KeyStore
from nbllm.service.recorded import RecordedRun
from nbllm.service.tracing import TracingClient

_START_S = 60.0
_ANSWER_S = 60.0
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. headers: by lower-case name. json: None for a body that is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as plain values."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Served:
    """A service that runs. port: on 127.0.0.1. key: of the tier "default"."""

    port: int
    key: str
    _answers: RecordedAnswers

    def get(self, path: str, *, key: str | None = None) -> Answer:
        """Ask for a path, without a key unless one is given."""
        return self._ask("GET", path, None, key)

    def post(self, path: str, body: Any, *, key: str | None = None) -> Answer:
        """Send JSON, with the service's own key unless another is given ("" for none)."""
        return self._ask("POST", path, json.dumps(body).encode(), self.key if key is None else key)

    def replay(self, run: RecordedRun) -> Answer:
        """Call a flow with recorded arguments; its models answer what was recorded."""
        self._answers.begin(run.calls, run.around)
        return self.post(f"/flows/{run.flow}", run.arguments)

    def _ask(self, method: str, path: str, body: bytes | None, key: str | None) -> Answer:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        finally:
            connection.close()


@contextmanager
def served(app: FastAPI) -> Iterator[Served]:
    """Serve an app's flows, by its own settings, for a with block. Nothing is sent to a model; nothing is written to its home."""
    with tempfile.TemporaryDirectory(prefix="nbllm-served-", ignore_cleanup_errors=True) as name:
        home, answers, service = Path(name), RecordedAnswers(), _service(app)
        with TracingClient(service.client.settings, home, answers) as client:
            flows = [spec.function for spec in service.flows.values()]
            copy = create_app(flows, replace(service.config, metrics_port=None), client=client, name=service.name)
            keys = _service(copy).keys = KeyStore(home / "service-keys.json", environ={})
            key, _ = keys.make()
            with _listening(copy) as port:
                yield Served(port, key, answers)


def _service(app: FastAPI) -> Service:
    found: Service = app.state.service
    return found


@contextmanager
def _listening(app: FastAPI) -> Iterator[int]:
    """Run an app on a free port, on a thread of its own; yield the port. Raises RuntimeError when it does not start."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
    # In this context: options that the module set when it was imported may hang on it (decimal, numpy).
    thread = threading.Thread(target=copy_context().run, args=(server.run,), name="nbllm-served", daemon=True)
    thread.start()
    end_s = time.monotonic() + _START_S
    try:
        while not server.started:
            if not thread.is_alive() or time.monotonic() > end_s:
                raise RuntimeError("The service did not start; what it said is above.")
            thread.join(0.01)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        yield port
    finally:
        server.should_exit = True
        thread.join(_STOP_S)
