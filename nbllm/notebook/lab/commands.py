"""What a front end may ask the kernel to do: these seven things and nothing else.

Stopping a call and the cache mode are done at once, in whatever thread asks. The others may wait for a disk: they are done in a
worker thread, and the result is sent from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from nbllm.core.ports import Filter
from nbllm.errors import NbllmError
from nbllm.flow_context import CELLS
from nbllm.notebook import wording
from nbllm.notebook.lab.values import name
from nbllm.redaction import redact

if TYPE_CHECKING:
    from nbllm.client import Client
    from nbllm.notebook.lab.messages import Command, Result, ResultData
    from nbllm.notebook.lab.watching import Watching

_log = logging.getLogger("nbllm")
_MOST_REPORT_CHARS = 200_000
COUNT_S = 1.5
"""How long stored answers are counted, the ledger's time to say which included: somebody waits for a question. The ledger's look
itself has no end: what it says later than this is not counted any more."""
_MODES = {
    "use": "Stored answers are used in this notebook.",
    "refresh": "Everything is asked anew in this notebook, and kept.",
    "off": "This notebook neither reads nor fills the cache.",
    None: "This notebook uses the cache as the settings say.",
}

Answer = tuple[str, "ResultData | None"]


class NotDone(Exception):
    """A command that was not carried out; the text is for the user."""


def refused(command: Command) -> Result:
    """Return the result of a command of a page that waits for too many others."""
    said = "The kernel is still busy with what was asked before. Try again in a moment."
    return {"v": 1, "type": "result", "id": command["id"], "ok": False, "message": said, "data": None}


class Commands:
    """Carries out commands. client: the current one, made when it is needed."""

    def __init__(self, client: Callable[[], Client], watching: Watching, version: str) -> None:
        self._client = client
        self._watching = watching
        self._version = version

    def takes_a_moment(self, command: Command) -> bool:
        """Whether it may wait for a disk, so that no handler may do it."""
        return command["do"] not in ("stop", "cache_mode")

    def done(self, command: Command, tag: str | None) -> Result:
        """Carry out a command of a notebook; whatever goes wrong is the result's message."""
        data: ResultData | None = None
        try:
            do = cast("Callable[[Any, str | None], Answer]", getattr(self, f"_{command['do']}"))
            message, data = do(command, tag)
            ok = True
        except NotDone as exc:
            message, ok = str(exc), False
        except NbllmError as exc:
            message, ok = name(f"{exc.summary} {exc.hint}", 1000), False
        except Exception as exc:  # of a client that was closed, a disk that is gone
            _log.debug("A command of the panel failed.", exc_info=True)
            message, ok = f"That did not work: {type(exc).__name__}.", False
        return {"v": 1, "type": "result", "id": command["id"], "ok": ok, "message": message, "data": data}

    def _stop(self, command: Any, _: str | None) -> Answer:
        match self._watching.stop(command["call_id"]):
            case True:
                return "Stopped.", None
            case None:
                raise NotDone(
                    "This call began before a panel listened, or in another process. To end it, interrupt the kernel that runs it."
                )
        raise NotDone("This call has ended already.")

    def _cache_mode(self, command: Any, tag: str | None) -> Answer:
        mode = command["mode"]
        if tag is None:
            raise NotDone("This is no notebook, so it has no cache mode of its own. For all calls: %llm_config cache=off.")
        if mode is None:
            CELLS.modes.pop(tag, None)
        else:
            CELLS.modes[tag] = mode
        return _MODES[mode], {"mode": mode}

    def _set_budget(self, command: Any, _: str | None) -> Answer:
        usd = None if command["usd"] is None else Decimal(command["usd"])
        self._client().set_budget("session", usd)
        said = "The session has no limit of its own." if usd is None else f"The session may spend {wording.usd(usd)}."
        return said, {"hard_usd": command["usd"]}

    def _clear_cache(self, _: Any, tag: str | None) -> Answer:
        client = self._client()
        keys = _keys_of(client, tag)
        gone = client.semantic.purge(keys=keys) if keys else 0
        return f"{wording.plural(gone, 'stored answer')} of this notebook dropped.", {"entries": gone}

    def _count_cache(self, _: Any, tag: str | None) -> Answer:
        client = self._client()
        began_s = time.monotonic()
        keys = _keys_of(client, tag)
        count = client.semantic.stored(keys, within_s=COUNT_S - (time.monotonic() - began_s))
        if count is None:
            raise NotDone(f"The stored answers of this notebook could not be counted within {COUNT_S:g} s.")
        return f"{wording.plural(count, 'answer')} of this notebook stored.", {"entries": count}

    def _report(self, _: Any, __: str | None) -> Answer:
        from nbllm.notebook.lab.report import report

        return "The report is ready.", {"markdown": redact(report(self._client(), self._version))[:_MOST_REPORT_CHARS]}

    def _why(self, command: Any, _: str | None) -> Answer:
        from nbllm.notebook.lab.report import found_call, why

        client = self._client()
        row = found_call(client, command["call_id"])
        if row is None:
            raise NotDone("The ledger has no such call.")
        return "Why this answer.", {"text": why(client, row)[:_MOST_REPORT_CHARS]}


def _keys_of(client: Client, tag: str | None) -> set[str]:
    """Return the cache keys of what calls of a notebook made or used, under its earlier names too."""
    if tag is None:
        raise NotDone("This is no notebook, so none of the stored answers is known to be its own. See %llm_cache purge.")
    its = [Filter(notebook=tag), *(Filter(notebook=old, until=until) for old, until in CELLS.former.get(tag, {}).items())]
    return {key for where in its for key in client.ledger.key_hashes(where)}
