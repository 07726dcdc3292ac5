"""The image of an export, built and run by a real engine where there is one (tests/services/test_export_image.py: where not).

`NBLLM_TEST_PYTHON_IMAGE=NAME` names a base image that is here already, for machines that cannot fetch the usual one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbllm.engines.supervised import free_port
from tests.export.exporting import exported

BASE = os.environ.get("NBLLM_TEST_PYTHON_IMAGE", "python:3.11-slim-bookworm")
NAME = f"localhost/nbllm-test-export-{os.getpid()}"
START_S = 120.0
pytestmark = pytest.mark.timeout(900)  # the first test waits for the image: for packages and compilers
Buildah = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def buildah() -> Buildah:
    """Runs buildah, which needs no daemon; a skip where there is none or where it cannot have the base image."""
    found = shutil.which("buildah")
    if found is None:
        pytest.skip("buildah is not installed: no image was built")
    # Of drivers and isolations these work inside a container too.
    env = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **os.environ}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([found, *words], env=env, capture_output=True, text=True, timeout=600, check=False)

    base = run("from", "--quiet", BASE)
    if base.returncode:
        pytest.skip(f"buildah cannot have {BASE}: {base.stderr.strip().splitlines()[-1]}")
    run("rm", base.stdout.strip())
    return run


@pytest.fixture(scope="module")
def container(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container of the export's image."""
    app = exported(tmp_path_factory.mktemp("built") / "support_app", proved=False).out
    pip = [word for name in os.environ if name.startswith("PIP_") for word in ("--env", name)]  # the index is the machine's own
    done = buildah("bud", "--format", "docker", "--build-arg", f"PYTHON_IMAGE={BASE}", *pip, "--tag", NAME, str(app))
    assert done.returncode == 0, done.stderr[-2000:]
    made = buildah("from", NAME).stdout.strip()
    try:
        yield made
    finally:
        buildah("rm", made)
        buildah("rmi", NAME)


def test_the_image_says_how_it_is_run(buildah: Buildah, container: str) -> None:
    """A user without rights, a probe of /health, SIGTERM, one folder to write to."""
    config = json.loads(json.loads(buildah("inspect", "--type", "image", NAME).stdout)["Config"])["config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/state"]
    assert "/health" in config["Healthcheck"]["Test"][-1]


def test_the_image_holds_no_notebook(buildah: Buildah, container: str) -> None:
    """No Jupyter, no plots, no LiteLLM, no pip; what builds stayed behind; the app's files belong to root."""
    listed = buildah("run", container, "--", "sh", "-c", "ls /venv/lib/python3.*/site-packages").stdout.lower()
    assert "nbllm" in listed
    assert not {"ipython", "ipywidgets", "jupyter", "jupyterlab", "matplotlib", "litellm", "pip"} & set(listed.split())
    assert buildah("run", container, "--", "ls", "/build").returncode != 0
    assert buildah("run", container, "--", "touch", "/app/here").returncode != 0
    assert buildah("run", container, "--", "touch", "/state/here").returncode == 0


def test_the_image_serves(buildah: Buildah, container: str, tmp_path: Path) -> None:
    """Its service starts as that user and answers."""
    port = free_port()
    command = [shutil.which("buildah"), "run", container, "--", "/venv/bin/nbllm", "serve", "/app", "--port", str(port)]
    env = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **os.environ}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as process:
        try:
            assert _answer(f"http://127.0.0.1:{port}/health") == {"status": "ok"}, (tmp_path / "log").read_text()[-2000:]
        finally:
            process.terminate()


def _answer(url: str) -> object:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http on loopback
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
    return None
