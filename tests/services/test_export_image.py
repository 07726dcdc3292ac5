"""The Dockerfile of an export, step by step in clean folders: for machines without a container engine, and with a package index.

What is not tried here is what needs an engine: the base image, the user (test_image_built.py has these), the read-only root.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbllm.engines.supervised import free_port
from tests.export.exporting import exported, tree
from tests.export.test_deploy import instructions
from tests.redis_server import MISSING, RedisServer

KEY = "a-key-of-more-than-thirty-two-bytes-for-this-test"
START_S = 60.0
STOP_S = 20.0


class Image:
    """Folders in place of an image's, and the environment of its processes."""

    def __init__(self, app: Path, root: Path) -> None:
        self.app = app
        self.root = root
        self.env = {"PATH": f"{self._python(root)}:/usr/bin:/bin", "HOME": str(root), "LANG": "C.UTF-8"}
        # What pip is told of its index is the machine's own.
        self.env |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}

    def _python(self, root: Path) -> Path:
        """A folder that holds a `python` with pip, and nothing of this environment."""
        subprocess.run([sys.executable, "-m", "venv", str(root / "base")], check=True)
        return root / "base" / "bin"

    def here(self, text: str) -> str:
        """A text with the image's folders replaced by these."""
        return re.sub(r"(?<![\w.-])/(venv|app|state|build)\b", lambda m: f"{self.root}/{m[1]}", text)

    def copy(self, words: str, folder: Path) -> None:
        """Do what COPY does, from the builder's context."""
        *sources, target = words.split()
        for source in sources:
            for path in sorted(self.app.glob(source.rstrip("/"))):
                place = folder / target
                if path.is_dir():
                    shutil.copytree(path, place, dirs_exist_ok=True)
                else:
                    place.mkdir(parents=True, exist_ok=True) if target.endswith("/") else None
                    shutil.copy(path, place)

    def run(self, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Do what RUN does."""
        return subprocess.run(
            ["sh", "-euc", self.here(command)], cwd=folder, env=self.env, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual export."""
    return exported(tmp_path_factory.mktemp("x") / "support_app").out


@pytest.fixture(scope="module")
def image(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Every instruction of the Dockerfile done, as far as it goes without an engine."""
    if sys.platform == "win32":
        pytest.skip("the steps are a shell's")
    made = Image(app, tmp_path_factory.mktemp("image"))
    folder, stage = made.root / "build", 0
    for word, rest in instructions(app):
        if word == "FROM":
            stage += 1
        elif word == "WORKDIR":
            folder = Path(made.here(rest))
            folder.mkdir()
        elif word == "COPY" and not rest.startswith("--from"):
            made.copy(rest, folder)
        elif word == "RUN" and "groupadd" not in rest:
            done = made.run(rest, folder)
            if stage == 1 and re.search(r"No matching distribution|Could not fetch|Connection|resolve", done.stderr):
                pytest.skip("no package index here: the image's packages were not installed")
            assert done.returncode == 0, done.stdout + done.stderr
        elif word == "ENV":
            made.env |= {
                n: made.here(v).replace("$PATH", made.env["PATH"]) for n, _, v in (one.partition("=") for one in rest.split())
            }
    (made.root / "state").mkdir(mode=0o700)
    return made


def words_of(app: Path, wanted: str) -> list[str]:
    """The JSON words of an instruction."""
    rest = next(rest for word, rest in instructions(app) if word == wanted)
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


@contextmanager
def started(app: Path, image: Image, **more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The image's own command, on a free port, with more variables; killed at the end if it still runs."""
    port = free_port()
    command = [image.here(word) for word in (*words_of(app, "ENTRYPOINT"), *words_of(app, "CMD"))]
    command[-1] = str(port)
    with running(image, command, NBLLM_SERVICE_KEY=KEY, **more) as process:
        yield process, port


@contextmanager
def running(image: Image, command: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the image's app folder, in a session of its own; killed at the end with its children."""
    program = shutil.which(command[0], path=image.env["PATH"]) or command[0]
    process = subprocess.Popen([program, *command[1:]], cwd=image.root / "app", env={**image.env, **more}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def healthy(app: Path, image: Image, port: int) -> bool:
    """What HEALTHCHECK says."""
    words = [word.replace("8080", str(port)) for word in words_of(app, "HEALTHCHECK")]
    words[0] = shutil.which(words[0], path=image.env["PATH"]) or words[0]
    return subprocess.run(words, env=image.env, capture_output=True, check=False).returncode == 0


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while a process runs."""
    end_s = time.monotonic() + START_S
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end_s
        time.sleep(0.2)


def asked(port: int, path: str, body: Any = None) -> Any:
    """What the service answers, with the key."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
        return json.load(answer)


@pytest.mark.skipif(MISSING, reason="no redis-server: the worker of compose.yaml was not started")
def test_jobs_run_on_the_worker(app: Path, image: Image, redis_server: RedisServer) -> None:
    """Service and worker as compose.yaml starts them, on one Redis: a job that one takes in, the other does."""
    redis_server.flush()
    worker = yaml.safe_load((app / "compose.yaml").read_text(encoding="utf-8"))["services"]["worker"]
    command = [*worker["entrypoint"], *worker["command"]]
    shared = {"REDIS_URL": redis_server.url}
    with running(image, command, **shared, NBLLM_SERVICE_KEY=KEY) as hands, started(app, image, **shared) as (process, port):
        wait_until(lambda: healthy(app, image, port), process)
        job = asked(port, "/flows/triage/jobs", {"ticket": "It burns."})
        wait_until(lambda: asked(port, f"/flows/triage/jobs/{job['id']}")["status"] not in {"queued", "running"}, hands)
        told = asked(port, f"/flows/triage/jobs/{job['id']}")
        assert told["status"] == "done", json.dumps(told)
        assert set(told["result"]) == {"urgent", "topic"}


def test_the_image_serves_and_ends(app: Path, image: Image) -> None:
    """Packages by hash, none of Jupyter's; the command starts on all addresses behind a key, answers, and ends on TERM."""
    (packages,) = (image.root / "venv").glob("lib/python*/site-packages")
    names = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert {"nbllm", "fastapi", "redis", "celery"} <= names
    assert names & {"ipython", "ipywidgets", "jupyterlab", "matplotlib", "litellm", "pip"} == set()
    before = {name for name in tree(image.root / "app") if "__pycache__" not in name}
    with started(app, image) as (process, port):
        wait_until(lambda: healthy(app, image, port), process)
        assert set(asked(port, "/flows/triage", {"ticket": "It burns."})) == {"urgent", "topic"}
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=STOP_S)
    assert process.returncode in {0, -signal.SIGTERM}, said
    assert KEY not in said
    assert {name for name in tree(image.root / "app") if "__pycache__" not in name} == before
    assert shlex.join(words_of(app, "CMD")) == "serve /app --host 0.0.0.0 --port 8080"
