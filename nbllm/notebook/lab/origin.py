"""Which cell of which notebook the code that runs belongs to, as the kernel's messages say it.

A notebook is named by the first 16 hex digits of the SHA-256 of its path, so that a ledger that is passed on names no folders.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import OrderedDict
from contextvars import ContextVar
from typing import Any

from nbllm.core.messages import NOWHERE, Origin
from nbllm.core.recorded import tag_of
from nbllm.flow_context import CELLS, ORIGIN, nothing_beside

_log = logging.getLogger("nbllm")
_MOST_SESSIONS = 1000
_MOST_FORMER = 20
_CELL_ID = re.compile("[A-Za-z0-9_-]{1,64}")
"""What the notebook format allows; other front ends give addresses, with paths in them."""


class Notebooks:
    """The notebooks that use this kernel, by the session of their messages; and the cell that runs.

    A call's origin is read when it is opened: from the code's own context, which tasks inherit. A thread inherits nothing: its
    calls count to the cell that runs while they are made, in whatever notebook, and to none when no cell does. So it is with the
    cache mode: a thread that outlives its cell asks as the settings say, and while a cell of another notebook runs, as that one's
    mode says. The callback of a widget is no cell, whether it runs beside one or between two: its calls have no origin, as those
    for the callers of a service.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._tags: OrderedDict[str, str | None] = OrderedDict()
        self._started_for = os.environ.get("JPY_SESSION_NAME") or None
        self._started_path: str | None = None
        self._request: str | None = None
        self._outermost: Any = None
        # Of messages that are handled beside each other each has its own context; ipykernel before 7 handles one after the other.
        parent = getattr(getattr(shell, "kernel", None), "_shell_parent", None)
        if not isinstance(parent, ContextVar):
            _log.debug("The kernel does not say which message it answers: a widget's calls count to the cell that runs.")
            parent = ContextVar("nbllm_answered")
        self._answered: ContextVar[Any] = parent

    def named(self, session: str, path: str | None) -> str | None:
        """Take in what a front end says: its messages' session is that of this notebook, None for a console. Return its tag.

        The server tells a kernel the whole path of the notebook that it was started for, and its front end the path below the
        server's folder. The first path that the whole one ends with is that notebook's; later ones that it ends with as well, of a
        notebook of the same name in a folder above, are others'. A session that says another path has had its notebook renamed:
        its cache mode, its calls and its answers stay its own. A session that comes with an old name is another notebook.
        """
        before = self._tags.get(session)
        tag = self._tags[session] = None if path is None else self._tag_of(path)
        self._tags.move_to_end(session)
        while len(self._tags) > _MOST_SESSIONS:
            self._tags.popitem(last=False)
        if before is not None and tag is not None and before != tag:
            _renamed(before, tag)
        elif before is None and tag is not None:
            CELLS.renamed.pop(tag, None)
        return tag

    def _tag_of(self, path: str) -> str:
        whole = self._started_for
        if whole is None:
            return tag_of(path)
        if self._started_path is None and f"/{whole}".replace("\\", "/").endswith("/" + path.lstrip("/")):
            self._started_path = path
        return tag_of(whole if path == self._started_path else path)

    def watch_cells(self) -> None:
        """Note from now on which cell runs; the one that asks for this is the first."""
        self._shell.events.register("pre_run_cell", self._entered)
        self._shell.events.register("post_run_cell", self._left)
        CELLS.is_beside = self._is_beside
        self._entered(None)

    def leave_cells(self) -> None:
        """Note it no more."""
        self._shell.events.unregister("pre_run_cell", self._entered)
        self._shell.events.unregister("post_run_cell", self._left)
        self._forget()
        CELLS.former.clear()
        CELLS.renamed.clear()
        CELLS.is_beside = nothing_beside

    def _is_beside(self) -> bool:
        """Whether the code that runs answers a message of a widget. In the way of every call: two look-ups."""
        message = self._answered.get(None)
        kind = message["header"].get("msg_type") if message and "header" in message else None
        return kind is not None and kind != "execute_request"

    def _entered(self, info: Any) -> None:
        request, origin = self._executed()
        if request is None or request != self._request:  # else it is a cell in a cell, of %run
            self._request, self._outermost = request, info
        CELLS.running = origin
        ORIGIN.set(None if origin is NOWHERE else origin)

    def _left(self, result: Any) -> None:
        if self._outermost is None or getattr(result, "info", None) is self._outermost:
            self._forget()

    def _forget(self) -> None:
        # The kernel runs whatever comes next in the same context: the callback of another notebook's widget, for one.
        self._request, self._outermost, CELLS.running = None, None, NOWHERE
        ORIGIN.set(None)

    def _executed(self) -> tuple[str | None, Origin]:
        """Return the id of the request that is being executed, and its cell and notebook."""
        try:
            parent = self._shell.kernel.get_parent("shell")
            header, cell_id = parent.get("header", {}), parent.get("metadata", {}).get("cellId")
            request, session = header.get("msg_id"), header.get("session")
        except (AttributeError, LookupError, TypeError):  # no such request, or another kernel's idea of one
            return None, NOWHERE
        if not header:  # loaded as the kernel starts
            return None, NOWHERE
        known = isinstance(cell_id, str) and _CELL_ID.fullmatch(cell_id)
        return request, Origin(cell_id if known else None, self._tag(session))

    def _tag(self, session: Any) -> str | None:
        if isinstance(session, str) and session in self._tags:
            return self._tags[session]
        return None if self._started_for is None else tag_of(self._started_for)


def _renamed(before: str, tag: str) -> None:
    """Carry over what is known of a notebook by its tag."""
    if (mode := CELLS.modes.pop(before, None)) is not None:
        CELLS.modes.setdefault(tag, mode)
    former = CELLS.former.pop(before, {}) | CELLS.former.get(tag, {}) | {before: time.time()}
    former.pop(tag, None)
    CELLS.former[tag] = dict(list(former.items())[-_MOST_FORMER:])
    now = {old: tag if name == before else name for old, name in CELLS.renamed.items()} | {before: tag}
    now.pop(tag, None)
    CELLS.renamed = now
    CELLS.renames += 1


def name_now(tag: str | None, started_at: float) -> str | None:
    """Return the tag that the notebook of a call has now. started_at: when the call began, in Unix time."""
    its = [(until, now) for now, former in list(CELLS.former.items()) if started_at < (until := former.get(tag or "", 0.0))]
    return min(its)[1] if its else tag
