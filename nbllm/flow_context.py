"""Which flow the current code is part of, for whom and where it runs, and who looks on: read when a call is opened."""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from nbllm.core.messages import NOWHERE, CacheMode, CallRecord, DayScope, Origin, Request, Sink
from nbllm.core.ports import Recordings
from nbllm.core.reply import Reply
from nbllm.errors import InvalidRequest, NbllmError
from nbllm.once import Once

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


class RunEnds:
    """Where a client keeps how runs of flows ended. Losing that is no reason to lose the result."""

    def __init__(self, recordings: Callable[[], Recordings]) -> None:
        self._recordings = recordings

    def run_ended(self, run: str, status: str, calls: int) -> None:
        """A run is over: "done" or "failed"; calls: how many of this client's it opened."""
        try:
            self._recordings().end_run(run, status, calls)
        except NbllmError as exc:
            logging.getLogger("nbllm").warning("The end of the flow's run %s was not recorded: %s", run, exc.summary)


class Flow:
    """One run of a flow. arguments: returns them as recordings keep them, with doubts; asked once, when a recording wants them."""

    def __init__(self, name: str, arguments: Callable[[], tuple[dict[str, Any], dict[str, str]]]) -> None:
        self._name = name
        self._arguments = arguments
        self._run = uuid4().hex[:12]
        self._outer = FLOW.get()
        self._calls: dict[RunEnds, int] = {}
        self._counting = threading.Lock()
        self.answers: dict[Any, Once[Any]] = {} if self._outer is None else self._outer.answers
        """What once_in_a_flow keeps: one for a flow and the flows that it calls."""

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @cached_property
    def shown(self) -> Mapping[str, Any]:
        """The flow as recordings keep it: name, run (an id that all its calls share) and arguments.

        doubts: by name, why an argument could not be recorded as what it is. outer: the same of the flows around this one, the
        nearest first. Both only where there are any.
        """
        arguments, doubts = self._arguments()
        told: dict[str, Any] = {"name": self._name, "run": self._run, "arguments": arguments}
        if doubts:
            told["doubts"] = doubts
        if self._outer is not None:
            nearest = {name: value for name, value in self._outer.shown.items() if name != "outer"}
            told["outer"] = [nearest, *self._outer.shown.get("outer", ())]
        return told

    def opened(self, ends: RunEnds) -> None:
        """Count a call of this run, and of those around it, that is recorded where ends are kept too."""
        with self._counting:
            self._calls[ends] = self._calls.get(ends, 0) + 1
        if self._outer is not None:
            self._outer.opened(ends)

    def over(self, status: str) -> None:
        """Tell everybody who recorded a call of it how it ended."""
        for ends, calls in self._calls.items():
            ends.run_ended(self._run, status, calls)


FLOW: ContextVar[Flow | None] = ContextVar("nbllm_flow", default=None)


class FlowStopped(BaseException):
    """Ends the code of a flow that nobody waits for any more: its caller left, or its time was over.

    Like KeyboardInterrupt it is no Exception, so that an `except Exception` of the flow does not keep it running.
    """


class Watcher(Protocol):
    """Who follows the calls of a flow from outside, as a service does. Called from any thread; must not block."""

    streams: bool
    """Whether answers are to be shown as they come: then each call asks its provider for a stream."""

    def sink_for(self, request: Request) -> Sink:
        """Return where one call is watched. Its sink is called from any thread, because a hit is shown on the caller's own."""

    def hold(self, stop: Callable[[], object]) -> Callable[[], object]:
        """Take what ends a call that is about to begin; return what lets go of it. Raises FlowStopped when no call is to begin."""

    def replied(self, reply: Reply) -> None:
        """A call has its answer."""

    def failed(self, error: Exception) -> None:
        """A call ended without one."""


WATCHER: ContextVar[Watcher | None] = ContextVar("nbllm_watcher", default=None)


class Onlooker(Protocol):
    """Who looks at all calls of this process, whoever makes them, as a panel does. Must neither block nor raise.

    What it must do is microseconds: it is called in the way of every call.
    """

    def begun(self, request: Request, sink: Sink, stop: Callable[[], object], home: Path) -> Sink:
        """A call goes down the road, on the loop: return the sink that it is to have, which passes all on to `sink`.

        stop: ends this caller's call, from any thread, at any time. home: the folder of its client, whose ledger has its row.
        """

    def over(self, request: Request) -> None:
        """It has come back, however it did; on the loop."""

    def ended(self, record: CallRecord, home: Path) -> None:
        """A call has ended and has its row in the ledger of this home; hits too, which go down no road. From any thread."""

    def changed(self) -> None:
        """Something else that is shown has changed: settings, reset breakers, a model server. From any thread."""


ONLOOKERS: list[Onlooker] = []
"""At most one, as a rule none. Emptied in a forked child, which has nobody to show anything to."""


def tell_changed() -> None:
    """Tell whoever looks on that something has changed that is no call."""
    for onlooker in tuple(ONLOOKERS):
        onlooker.changed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ONLOOKERS.clear)


class CallerContext(NamedTuple):
    """For whom the current code works, as a service says it: calls that say nothing else are this caller's.

    user: whose name is in the ledger. partition: the part of the cache; None: the settings' own. scopes: the budgets of a day that
    each call pays into besides all others.
    """

    user: str | None = None
    partition: str | None = None
    scopes: tuple[DayScope, ...] = ()


CALLER: ContextVar[CallerContext | None] = ContextVar("nbllm_caller", default=None)


class _Payers:
    """What holds for the process. required: a call that runs for nobody is refused, as where all that is asked is for callers."""

    required = False


PAYERS = _Payers()


def caller_now() -> CallerContext | None:
    """Return for whom the current code works. Raises InvalidRequest where that must be known and is not."""
    caller = CALLER.get()
    if caller is None and PAYERS.required:
        raise InvalidRequest(
            "Something asked a model that no caller of this service waits for, so nobody would pay for it. Nothing was sent.",
            hint="A thread belongs to the flow that starts it, or submits to its ThreadPoolExecutor. What a module started asks "
            "for nobody: start it inside the flow, or hand it contextvars.copy_context().run.",
        )
    return caller


ORIGIN: ContextVar[Origin | None] = ContextVar("nbllm_origin", default=None)
"""The cell that the current code belongs to: set by the notebook face while it runs, inherited by its tasks and not by threads."""


def nothing_beside() -> bool:
    """Return False: without a notebook face, no code answers a widget's message while a cell runs."""
    return False


class _Cells:
    """What holds for the process, by the tags of notebooks where it is theirs; kept up by the notebook face.

    running: the cell that runs just now. modes: how they use the cache. former: which tags one had before it was renamed, each
    with the Unix time until which it was its own. renamed: the tag that the notebook of an old one has now, for what began under
    the old. renames: how often that changed. is_beside: whether the code that asks answers another message than a cell's.
    """

    running = NOWHERE
    renames = 0

    def __init__(self) -> None:
        self.modes: dict[str | None, CacheMode] = {}
        self.former: dict[str, dict[str, float]] = {}
        self.renamed: dict[str | None, str] = {}
        self.is_beside = nothing_beside


CELLS = _Cells()


def origin_now() -> Origin:
    """Return where the current code was asked for: nowhere, where it works for the caller of a service.

    In a thread, which inherits nothing, it is the cell that runs just now: the one that waits for the pool, as a rule; between
    cells nowhere. In a callback of a widget it is nowhere, whatever cell runs beside it.
    """
    if CALLER.get() is not None or CELLS.is_beside():
        return NOWHERE
    origin = ORIGIN.get()
    if origin is None:
        origin = CELLS.running
    if CELLS.renamed and (tag := CELLS.renamed.get(origin.notebook)) is not None:
        return Origin(origin.cell_id, tag)
    return origin


def cache_mode_here() -> CacheMode | None:
    """Return how the notebook of the current code wants the cache used; None: as the settings say, or no notebook is known."""
    if not CELLS.modes or (notebook := origin_now().notebook) is None:
        return None
    return CELLS.modes.get(notebook)


def payers(user: str | None, caller: CallerContext | None) -> dict[str, Any]:
    """Return what a call's options say of who pays. user: the call's own, which wins."""
    return {} if caller is None else {"user": user or caller.user, "scopes": caller.scopes}


def partition_of(own: str) -> str:
    """Return the part of the cache that a call sees: its own or the settings', else that of whom the code runs for."""
    caller = CALLER.get()
    return own if own or caller is None or caller.partition is None else caller.partition


def stored_constant(path: str) -> Any:
    """Return a constant that an export took out of the code (`--include NAME`): JSON, from the working folder as all its files."""
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be one more import of everybody
        return json.load(file)


def once_in_a_flow(function: Callable[[], T]) -> Callable[[], T]:
    """Return the function, run at most once in a call of a flow: later calls in it get the same value, other threads wait.

    Outside of a flow it runs each time. A run that raises is not kept; one that needs its own value to end raises InvalidRequest
    instead of waiting for itself. Exported notebooks use it: what a %%llm cell asked once for
    all cells below, a flow asks once for all of its code.
    """

    @functools.wraps(function)
    def wrapper() -> T:
        flow = FLOW.get()
        if flow is None:
            return function()
        # setdefault is one step for other threads, so all of them wait for the same one
        kept: T = flow.answers.setdefault(function, Once(function, getattr(function, "__name__", "A function"))).get()
        return kept

    return wrapper


def current_flow() -> Mapping[str, Any] | None:
    """Return {"name": ..., "run": ..., "arguments": ...} of the innermost flow, None outside of one."""
    flow = FLOW.get()
    return None if flow is None else flow.shown


def recorded_flow(ends: RunEnds) -> Mapping[str, Any] | None:
    """Return the same for a call that is opened now and will be recorded; `ends` is told how the run ends."""
    flow = FLOW.get()
    if flow is None:
        return None
    flow.opened(ends)
    return flow.shown
