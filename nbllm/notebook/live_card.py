"""A display that tells now and then how something in the background does, from the main thread, until that is over."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

from nbllm.notebook.views import View

EVERY_S = 1.0
Made = Callable[[], tuple[View, bool]]
"""Returns what is to be shown now, and whether that is all: asked in a worker thread, so it may wait for an answer."""


class LiveCard:
    """One display in a notebook, updated while its kernel is idle, and only when there is something new; in a terminal one print.

    A kernel shows what its main thread displays, and its event loop runs there: the updates are a task on it. Where there is no
    such loop (a terminal) the card stays as it is.
    """

    def __init__(self, shell: Any, view: View) -> None:
        self.in_place = getattr(shell, "kernel", None) is not None
        self._handle: Any = None
        self._shown = ""
        self._task: asyncio.Task[None] | None = None
        self.show(view)

    def show(self, view: View) -> None:
        """Show a view in place of what is shown."""
        data = view._repr_mimebundle_()
        if data["text/plain"] == self._shown:
            return
        self._shown = data["text/plain"]
        if not self.in_place:
            sys.stdout.write(f"{view}\n")
            return
        from IPython.display import display

        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]  # untyped in IPython
        else:
            self._handle.update(data, raw=True)

    def follow(self, made: Made, every_s: float = EVERY_S) -> None:
        """Show what `made` returns, about once a second, until it says that this is all."""
        if not self.in_place:
            return
        with contextlib.suppress(RuntimeError):  # no loop runs on this thread
            self._task = asyncio.get_running_loop().create_task(self._follow(made, every_s), name="nbllm-card")

    async def _follow(self, made: Made, every_s: float) -> None:
        over = False
        while not over:
            await asyncio.sleep(every_s)
            with contextlib.suppress(Exception):  # a card is not worth an error in the kernel's log
                view, over = await asyncio.to_thread(made)
                self.show(view)

    def end(self, view: View | None = None) -> None:
        """Show a last view, and no other after it."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if view is not None and self.in_place:
            self.show(view)
