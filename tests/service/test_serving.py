"""`nbllm serve` as a process of its own: what it loads, says and refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.raw import Line
from tests.service.running import Running, write_settings
from tests.starvation import Stopwatch

APP = """
import asyncio, sys
from pathlib import Path
from nbllm import flow, ask
from nbllm.service import create_app
from nbllm.service.access import Authenticated
from nbllm.service.context import service_of
from fastapi import Request

app = create_app(settings=Path(__file__).with_name("settings.toml"))

@app.post("/work")
async def work(request: Request, caller: Authenticated) -> dict[str, str]:
    async with service_of(request).gate.enter(caller):
        with service_of(request).paying(caller, "flow"):
            reply = await service_of(request).client.aask("Say hi. CONFIDENTIAL-PROMPT")
        await asyncio.sleep(0.8)
    return {"text": reply.text}

@app.get("/modules")
async def modules(caller: Authenticated) -> list[str]:
    return sorted({name.partition(".")[0] for name in sys.modules})
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


@dataclass
class Process:
    """A service that runs. line: for requests to it."""

    process: subprocess.Popen[bytes]
    port: int
    key: str
    said: str

    def line(self) -> Line:
        return Line(Running("127.0.0.1", self.port, self.key, None, None), 10)  # type: ignore[arg-type]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


KEY = "a-key-of-these-tests-of-40-characters-at-least"


def environ(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NBLLM_")}
    return {**kept, "NBLLM_SIM_SPEED": "0", **more}


@contextmanager
def served(folder: Path, *more: str) -> Iterator[Process]:
    """Run `nbllm serve` on a folder until the block ends; KEY opens it."""
    command = [sys.executable, "-m", "nbllm.cli", "serve", str(folder), "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(NBLLM_SERVICE_KEY=KEY))
    try:
        assert process.stderr is not None
        said = said_by(process.stderr.readline)
        port = re.search(r"http://[^:]+:(\d+)", said)
        assert port
        yield Process(process, int(port[1]), KEY, said)
    finally:
        process.kill()
        process.communicate()


def said_by(readline: Callable[[], bytes]) -> str:
    """What a service says when it opens."""
    said = ""
    while "  cache" not in said:
        line = readline().decode()
        if not line:
            raise AssertionError(f"it did not start: {said}")
        said += line
    return said


def first_key(folder: Path, *, terminal: bool) -> str:
    """What `nbllm serve` without a key says when it opens, to a terminal or into a log file."""
    import pty  # POSIX has it

    command = [sys.executable, "-m", "nbllm.cli", "serve", str(folder), "--port", "0"]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environ())
    os.close(theirs)
    try:
        with os.fdopen(ours, "rb", buffering=0) as reader:
            return said_by(reader.readline)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_settings(tmp_path, "grace_s = 5\nmetrics_port = 0\nqueue_wait_s = 5")
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_a_service_that_runs_has_loaded_no_notebook_and_ends_in_order(folder: Path) -> None:
    """A running service holds no Jupyter, plots or LiteLLM; its log has no prompt and no key; SIGTERM lets a request finish.

    After SIGTERM nothing new is taken, what runs is answered within the grace, the process ends with 0 and leaves no lock.
    """
    with served(folder) as it:
        with it.line() as line:
            loaded = set(line.ask("/modules", headers=it.headers).json)
        assert not loaded & {"IPython", "ipywidgets", "matplotlib", "litellm", "jupyterlab", "jupyter_core", "ipykernel", "zmq"}
        with it.line() as busy, it.line() as idle:
            assert idle.ask("/health").status == 200
            head = f"POST /work HTTP/1.1\r\nHost: {busy.host}\r\nAuthorization: Bearer {it.key}\r\n\r\n"
            busy.send(head.encode())
            time.sleep(0.3)
            it.process.send_signal(signal.SIGTERM)
            answer = busy.read()
            assert answer.status == 200
            assert "text" in answer.json
            assert idle.closed()
        with pytest.raises(OSError, match="refused"):
            it.line()
        out, err = it.process.communicate(timeout=30)
        assert it.process.returncode == 0
    lines = [json.loads(line) for line in out.decode().splitlines()]
    work = next(line for line in lines if line.get("route") == "/work")
    assert work["status"] == 200
    assert re.fullmatch(r"[0-9a-f]{32}", work["request_id"])
    for text in (out, err):
        assert b"CONFIDENTIAL" not in text
        assert it.key.encode() not in text  # it was on stderr once, before this
    assert b"Traceback" not in out + err
    assert not list((folder / ".state" / "run").glob("*.lock"))


def test_what_does_not_end_within_the_grace_is_cut(folder: Path) -> None:
    """A request that runs longer than the grace is told 503 with Retry-After, and the process ends."""
    write_settings(folder, "grace_s = 1")
    (folder / "app.py").write_text(APP.replace("asyncio.sleep(0.8)", "asyncio.sleep(60)"))
    with served(folder) as it, it.line() as line:
        line.send(f"POST /work HTTP/1.1\r\nHost: {line.host}\r\nAuthorization: Bearer {it.key}\r\n\r\n".encode())
        time.sleep(0.3)
        watch = Stopwatch(others=True)
        it.process.send_signal(signal.SIGTERM)
        answer = line.read()
        assert (answer.status, answer.kind) == (503, "draining")
        assert int(answer.headers["retry-after"]) >= 1
        assert it.process.wait(30) == 0
        assert watch.s < 4


def test_it_says_what_is_open_to_whom(folder: Path) -> None:
    """The opening lines name who may come; the numbers' own port needs no key, and answers to no other name."""
    with served(folder) as it:
        assert "programs on this machine only" in it.said
        assert "none may call it" in it.said
        port = int(re.search(r"metrics +http://127.0.0.1:(\d+)", it.said)[1])  # type: ignore[index]
        with Line(Running("127.0.0.1", port, "", None, None)) as line:  # type: ignore[arg-type]
            assert b"nbllm_requests_running" in line.ask("/metrics").body
        with Line(Running("127.0.0.1", port, "", None, None)) as line:  # type: ignore[arg-type]
            assert line.ask("/metrics", headers={"Host": "evil.example"}).status == 421


def test_the_first_key_is_shown_to_a_person_and_to_no_log(folder: Path) -> None:
    """On a terminal the first start makes a key and shows it once. Where the lines go into a file none is made, and it says how."""
    key_file = folder / ".state" / "service-keys.json"
    said = first_key(folder, terminal=False)
    assert f"none yet. Make one, it works at once: nbllm keys make {folder}" in said
    assert not key_file.exists()
    said = first_key(folder, terminal=True)
    key = re.search(r"nbllm_[0-9a-f]{8}_[\w-]{43}", said)
    assert key
    assert key[0] not in key_file.read_text()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert "nbllm_" not in first_key(folder, terminal=True).replace("nbllm_requests", "")


def refused(folder: Path, *more: str, **variables: str) -> str:
    """Run `nbllm serve` where it is to refuse; return what it says."""
    command = [sys.executable, "-m", "nbllm.cli", "serve", str(folder), *more]
    done = subprocess.run(command, capture_output=True, timeout=30, env=environ(**variables), check=False)
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    return said


def test_a_public_address_needs_a_key(folder: Path) -> None:
    """Without a key nothing is opened on 0.0.0.0; a key of one's own that is short is refused, too."""
    assert "has no key" in refused(folder, "--host", "0.0.0.0")
    assert "32 bytes" in refused(folder, "--host", "0.0.0.0", NBLLM_SERVICE_KEY="short")


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    """The address is named, and what to do; no key is made that nobody would see."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(folder, "--port", str(port))
    assert not (folder / ".state" / "service-keys.json").exists()
    assert f"127.0.0.1 port {port} cannot be opened" in said
    assert "Name another port" in said


def test_a_folder_that_is_no_app_and_bad_settings_are_said(folder: Path) -> None:
    """Both are one message with the place, not a traceback."""
    assert "holds no app" in refused(folder / "nothing")
    write_settings(folder, "max_runing = 3")
    said = refused(folder)
    assert "settings.toml, line 4" in said
    assert "max_running" in said


def test_an_app_that_names_a_flow_that_is_not_there_is_said(folder: Path) -> None:
    """A fault in the user's own files is a sentence with file and line."""
    write_settings(folder)
    (folder / "flows.py").write_text("def other() -> str:\n    return ''\n")
    (folder / "app.py").write_text("import flows\n\napp = flows.triage\n")
    said = refused(folder)
    assert "AttributeError: module 'flows' has no attribute 'triage' (app.py, line 3)" in said
    assert "Traceback" not in said


def test_a_logger_that_kept_its_stream_at_import_shows_no_prompt(folder: Path) -> None:
    """What an app's module looked up when it was loaded, as some packages do, leads to no plain text in what is written."""
    (folder / "app.py").write_text(
        "import logging, sys\nfrom pathlib import Path\nfrom nbllm import flow\nfrom nbllm.service import create_app\n"
        "logging.basicConfig(level=logging.INFO)\nerr, out = sys.stderr, sys.stdout\n\n@flow\ndef say(text: str) -> str:\n"
        "    print(text, file=err)\n    print(text, file=out)\n    logging.info(text)\n    return 'said'\n\n"
        "app = create_app([say], settings=Path(__file__).with_name('settings.toml'))\n"
    )
    with served(folder) as it:
        with it.line() as line:
            headers = {**it.headers, "Content-Type": "application/json"}
            told = line.ask("/flows/say", "POST", headers, b'{"text": "PRIVATE"}')
        assert (told.status, told.json) == (200, "said")
        it.process.terminate()
        out, err = it.process.communicate(timeout=30)
    assert b"PRIVATE" not in out + err
    assert out.count(b"printed 7 characters") == 2
    assert b"Said at app.py:12" in out


def test_a_file_that_the_app_reads_and_that_is_not_there_is_said(folder: Path) -> None:
    """What a module beside the app reads at its start, and misses, is a sentence with file and line too."""
    write_settings(folder)
    (folder / "prompts.py").write_text("from pathlib import Path\n\nRULES = Path(__file__).with_name('rules.txt').read_text()\n")
    (folder / "app.py").write_text("import prompts\n\napp = prompts\n")
    said = refused(folder)
    assert "FileNotFoundError" in said
    assert "rules.txt' (prompts.py, line 3)" in said


def test_a_home_that_cannot_be_used_is_said(folder: Path) -> None:
    """A home that is no folder is said before anything is served."""
    (folder / ".state").write_text("I am a file")
    assert ".state" in refused(folder)
