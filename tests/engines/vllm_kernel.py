"""A notebook's kernel with a real vLLM below it."""

from __future__ import annotations

from typing import Any

from tests.engines_room.processes import wait_until_gone
from tests.notebook.kernel import Kernel


class VllmKernel:
    """A notebook's kernel with a vLLM below it. mark: what is in the environment of everything that it started."""

    def __init__(self, kernel: Kernel, mark: str) -> None:
        self.kernel = kernel
        self.mark = mark

    def runs(self, *cells: str) -> None:
        """Run cells, each of which must end well."""
        for cell in cells:
            assert self.kernel.run(cell) == "ok", self.kernel.of("error")

    @property
    def process(self) -> Any:
        """The kernel's own process."""
        return self.kernel.manager.provisioner.process

    def kill(self) -> None:
        """End the kernel with SIGKILL; within 5 s nothing of what it started is left."""
        self.process.kill()
        wait_until_gone(self.mark, 5.0)
