"""What an export's own documentation promises, held against thousands of requests that are generated from it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nbllm.engines.supervised import free_port
from tests.export.exporting import exported

KEY = "a-key-of-more-than-thirty-two-bytes-for-this-test"
ROOT = Path(__file__).parents[2]
START_S = 30.0
LIMIT_S = 500
CASES_OF_AN_OPERATION = 320
AT_LEAST_CASES = 5_000
# A request may be of the right shape and still be refused: a prompt of nothing but spaces, a key for another body, an id that
# nobody made. What a right request is answered with otherwise is held by all other checks.
EXPECTED = '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "400", "401", "403", "404", "409", "422", "429"]\n'


@contextmanager
def served(app: Path) -> Iterator[str]:
    """Run an export as its README says; yield where it is."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {**os.environ, "NBLLM_HOME": str(app.parent / "state"), "NBLLM_SERVICE_KEY": KEY, "NBLLM_SIM_SPEED": "1000"}
    environ["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "nbllm.cli", "serve", str(app), "--port", str(port)]
    with (app.parent / "serve.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environ) as process:
        try:
            until_s = time.monotonic() + START_S
            while time.monotonic() < until_s and process.poll() is None:
                with suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=1):  # noqa: S310 - on loopback
                    break
                time.sleep(0.1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.skipif(shutil.which("st", path=str(Path(sys.executable).parent)) is None, reason="schemathesis is not installed")
def test_thousands_of_requests_find_nothing_that_is_not_documented(tmp_path: Path) -> None:
    """All checks: no server error, no status, type, header or body that the documentation does not name, no way past the key."""
    app = tmp_path / "app"
    exported(app, proved=False)
    settings = app / "settings.toml"
    text = settings.read_text(encoding="utf-8")
    limits = "[service]\n[service.tiers.default]\nrequests_per_minute = 1_000_000\n"  # what is tried is not the limit
    settings.write_text(text.replace("[service]\n", limits, 1), encoding="utf-8")
    (tmp_path / "schemathesis.toml").write_text(EXPECTED, encoding="utf-8")
    with served(app) as url:
        command = [str(Path(sys.executable).parent / "st"), "run", f"{url}/openapi.json", "-H", f"Authorization: Bearer {KEY}"]
        options = ["--checks", "all", "-n", str(CASES_OF_AN_OPERATION), "--seed", "1", "--no-color"]
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    cases = re.search(r"([\d,]+) generated", done.stdout)
    assert cases is not None, done.stdout[-6000:]
    assert int(cases[1].replace(",", "")) >= AT_LEAST_CASES
    log = (tmp_path / "serve.log").read_text(encoding="utf-8", errors="replace")
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/models", "/flows/"):
        assert f'"route":"{path}' in log, f"{path} was not asked"
    assert "Traceback" not in log
