"""The proof's process has no network, and neither has anything that it starts."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbllm.export import prove
from tests.export.making import HEAD, sliced

pytestmark = pytest.mark.usefixtures("real_python")
TRY = """
from nbllm.export.cut_off import cut_off
from pathlib import Path
import os
print(cut_off(), os.getuid() == {uid}, Path({file!r}).read_text())
"""


def can_cut_off(folder: Path) -> bool:
    """Whether the system lets this user have a network namespace; the process stays who it is and reads its files."""
    import os

    if sys.platform != "linux":
        return False
    (folder / "own").write_text("mine", encoding="utf-8")
    code = TRY.format(uid=os.getuid(), file=str(folder / "own"))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert said[1:] == ["True", "mine"]
    return said[0] == "True"


def test_a_child_process_reaches_nothing(tmp_path: Path) -> None:
    """A cell that asks the network by way of a program is not proved; on a system without namespaces that is said."""
    reached = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: (server.accept(), reached.set()), daemon=True).start()
        ask_it = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        cell = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {ask_it!r}], check=True)\nRULES = 'x'"
        proof = prove(sliced(HEAD, cell, "@flow\ndef f(q: str) -> str:\n    return ask(RULES + q).text", flow="f"))
    assert proof.cut_off == can_cut_off(tmp_path)
    if proof.cut_off:
        assert not reached.is_set()
        assert "CalledProcessError" in proof.problems[0]
