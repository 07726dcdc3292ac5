"""A real kernel for tests, and what it sends."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager


class Kernel:
    """A kernel and everything that it sent for the last cell."""

    def __init__(self, client: Any, manager: KernelManager) -> None:
        self.client, self.manager = client, manager
        self.messages: list[dict[str, Any]] = []

    def run(self, code: str, *, interrupt_when: Any = None) -> str:
        """Run a cell, with an interrupt as soon as interrupt_when(message) is true; return "ok" or "error"."""
        self.messages = []
        asked = self.client.execute(code)
        while True:
            message = self.client.get_iopub_msg(timeout=30)
            if message["parent_header"].get("msg_id") != asked:
                continue
            self.messages.append(message)
            if interrupt_when is not None and interrupt_when(message):
                self.manager.interrupt_kernel()
                interrupt_when = None
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while True:
            answer = self.client.get_shell_msg(timeout=30)
            if answer["parent_header"].get("msg_id") == asked:
                return str(answer["content"]["status"])

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """The contents of the messages of these kinds."""
        return [m["content"] for m in self.messages if m["msg_type"] in kinds]

    def value(self, expression: str) -> Any:
        """The value of an expression in the kernel, as it is shown there."""
        self.run(expression)
        return self.of("execute_result")[-1]["data"]["text/plain"]

    def literal(self, expression: str) -> Any:
        """The same, read back: of an expression that gives numbers, texts, and lists and the like of them."""
        return ast.literal_eval(self.value(expression))


@contextmanager
def running_kernel(folder: Path) -> Iterator[Kernel]:
    """A kernel that works in that folder, with this process's environment; killed at the end of the block."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(client, manager)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@contextmanager
def kernel_with_a_home(folders: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A kernel with a working folder and an NBLLM_HOME of its own, in a notebook that nothing but its front ends name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_HOME", str(folders.mktemp("home")))
        patch.delenv("JPY_SESSION_NAME", raising=False)
        with running_kernel(folders.mktemp("work")) as made:
            yield made
