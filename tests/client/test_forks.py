"""Forked and spawned children: they start fresh, and the parent goes on as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nbllm
from nbllm import Client
from tests import fault_behaviours as f
from tests.client.helpers import our_threads, rows
from tests.client.workers import ask_and_tell, new_client_and_tell
from tests.fault_server import FaultServer
from tests.road.invariants import endpoint

TEXT = "One two three four five."
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.mark.parametrize("method", [pytest.param("fork", marks=forks), "spawn"])
def test_children_of_multiprocessing(method: str, tmp_path: Path) -> None:
    """A child asks by every door on the same home while the parent's client is open; the parent asks all along."""
    with FaultServer() as server:
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            assert client.ask("before").text == TEXT
            if method == "fork":
                child = context.Process(target=ask_and_tell, args=(client, queue, "child"))
            else:
                child = context.Process(target=new_client_and_tell, args=(tmp_path, server.base_url, queue, "child"))
            child.start()
            assert client.ask("meanwhile").text == TEXT
            assert queue.get(timeout=60) == [TEXT] * 4
            child.join(30)
            assert child.exitcode == 0
            assert client.ask("after").text == TEXT
            assert "".join(client.stream("after, streamed")) == TEXT
            assert client.ask("child").source == "cache", "what the child asked is kept for all"
            assert {row.status.value for row in rows(client)} == {"done"}
            assert len(rows(client)) == 9
        assert our_threads() == []


@forks
def test_grandchildren(tmp_path: Path) -> None:
    """A child that has its own fresh connections may fork again."""
    with FaultServer() as server:
        context = multiprocessing.get_context("fork")
        queue = context.Queue()

        def child(client: Client, depth: int) -> None:
            if depth:
                queue.put(client.ask(f"depth {depth}").text)
                inner = context.Process(target=child, args=(client, depth - 1))
                inner.start()
                inner.join(30)
                queue.put(client.ask(f"depth {depth} again").text)

        with Client(home=tmp_path, endpoints={"lab": endpoint(server)}, model="lab/m") as client:
            client.ask("before")
            child(client, 3)
            assert [queue.get(timeout=20) for _ in range(6)] == [TEXT] * 6


_SCRIPT = """
import gc, os, sys, threading, warnings
from nbllm import Client
from tests.road.invariants import endpoint

client = Client(home=sys.argv[1], endpoints={"lab": endpoint(sys.argv[2])}, model="lab/m", recordings=True)
client.ask("before")
slow = threading.Thread(target=lambda: print("slow", client.ask("slow", model="lab/slow").text, flush=True))
slow.start()
stream = client.stream("streamed", model="lab/streamed")
next(stream)
client.on_call(lambda record: None)
client.ask("with a hook")
pid = os.fork()
if pid == 0:
    if sys.argv[3] == "uses":
        print("child", client.ask("child").text, client.ask("before").source, flush=True)
        client.close()
    del client, stream
    gc.collect()
    sys.exit(0)
print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
slow.join()
print("parent", "".join(stream), client.ask("after").text, flush=True)
if sys.argv[4] == "closes":
    client.close()
"""


@forks
@pytest.mark.parametrize("closes", ["closes", "leaves open"])
@pytest.mark.parametrize("child", ["uses", "does nothing"])
def test_no_noise(child: str, closes: str, tmp_path: Path) -> None:
    """A child of a parent with calls in flight neither ends them nor complains, however both end: no unclosed session, no loop."""
    root = str(Path(nbllm.__file__).parents[1])
    with FaultServer() as server:
        server.script("slow", [f.ok(delay_s=0.7)])
        server.script("streamed", [f.ok(pace_s=0.1)])
        command = [sys.executable, "-W", "always", "-c", _SCRIPT, str(tmp_path), server.base_url, child, closes]
        environment = {**os.environ, "PYTHONPATH": root}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        said = sorted(done.stdout.splitlines())
        expected = ["child ended with 0", f"parent two three four five. {TEXT}", f"slow {TEXT}"]
        assert said == sorted([*expected, f"child {TEXT} cache"] if child == "uses" else expected), done.stderr
        assert done.stderr == ""
        assert done.returncode == 0
    with Client(home=tmp_path) as after:
        assert {row.status.value for row in rows(after)} == {"done"}
