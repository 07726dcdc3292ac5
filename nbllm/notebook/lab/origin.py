"""Which cell of which notebook the code that runs belongs to, as the kernel's messages say it.

A notebook is named by the first 16 hex digits of the SHA-256 of its path, so that a ledger that is passed on names no folders.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import Any

from nbllm.core.messages import NOWHERE, Origin
from nbllm.flow_context import CELLS, ORIGIN

_MOST_SESSIONS = 1000
_MOST_ID_CHARS = 200


def tag_of(path: str) -> str:
    """Return what a notebook's path is called in the ledger and in messages."""
    return hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Notebooks:
    """The notebooks that use this kernel, by the session of their messages; and the cell that runs.

    A call's origin is read when it is opened: from the code's own context, which tasks inherit. A thread that an executor made
    inherits nothing: its calls count to the cell that runs while they are made, and to none when no cell does.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._tags: OrderedDict[str, str | None] = OrderedDict()
        self._started_for = os.environ.get("JPY_SESSION_NAME") or None

    def named(self, session: str, path: str | None) -> str | None:
        """Take in what a front end says: its messages' session is that of this notebook, None for a console. Return its tag.

        The server tells a kernel the whole path of the notebook that it was started for, and its front end the path below the
        server's folder: one that ends with the other is the same notebook.
        """
        whole = self._started_for
        if path is not None and whole is not None and whole.replace("\\", "/").endswith("/" + path.lstrip("/")):
            path = whole
        tag = self._tags[session] = None if path is None else tag_of(path)
        self._tags.move_to_end(session)
        while len(self._tags) > _MOST_SESSIONS:
            self._tags.popitem(last=False)
        return tag

    def watch_cells(self) -> None:
        """Note from now on which cell runs."""
        self._shell.events.register("pre_run_cell", self._entered)
        self._shell.events.register("post_run_cell", self._left)

    def leave_cells(self) -> None:
        """Note it no more."""
        self._shell.events.unregister("pre_run_cell", self._entered)
        self._shell.events.unregister("post_run_cell", self._left)
        CELLS.running = NOWHERE

    def _entered(self, _: Any) -> None:
        CELLS.running = origin = self._origin()
        ORIGIN.set(origin)

    def _left(self, _: Any) -> None:
        CELLS.running = NOWHERE

    def _origin(self) -> Origin:
        """Return the cell and notebook of the request that is being executed."""
        try:
            parent = self._shell.kernel.get_parent("shell")
            cell_id, session = parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("session")
        except (AttributeError, LookupError, TypeError):  # no such request, or another kernel's idea of one
            return NOWHERE
        known = isinstance(cell_id, str) and 0 < len(cell_id) <= _MOST_ID_CHARS
        return Origin(cell_id if known else None, self._tag(session))

    def _tag(self, session: Any) -> str | None:
        if isinstance(session, str) and session in self._tags:
            return self._tags[session]
        return None if self._started_for is None else tag_of(self._started_for)
