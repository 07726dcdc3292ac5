"""The app starts, says how it is, and ends."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path

from nbllm.service import create_app
from tests.service.running import Running, running, write_settings


def get(app: Running, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(app.host, app.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_an_app_starts_says_that_it_is_well_and_ends(tmp_path: Path) -> None:
    """Under uvicorn, /health and /ready answer 200 without a key, and the home beside the settings is made."""
    app = create_app(settings=write_settings(tmp_path))
    with running(app) as it:
        assert get(it, "/health")[0] == 200
        status, _, body = get(it, "/ready")
        assert (status, json.loads(body)) == (200, {"status": "ready"})
    assert (tmp_path / ".state" / "run").exists()


def test_metrics_are_behind_a_key(tmp_path: Path) -> None:
    """/metrics answers 401 without a key and with a wrong one, and 200 with one."""
    with running(create_app(settings=write_settings(tmp_path))) as it:
        assert get(it, "/metrics")[0] == 401
        assert get(it, "/metrics", {"Authorization": "Bearer nothing"})[0] == 401
        status, headers, body = get(it, "/metrics", it.headers)
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        assert b"nbllm_requests_running" in body
