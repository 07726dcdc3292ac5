"""A running engine: how it does, and its end. Starting one is in nbllm.engines.launch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal

from nbllm.engines.process import REASON_LINES, SupervisedProcess
from nbllm.engines.ready import Asked
from nbllm.engines.reasons import reason_of
from nbllm.engines.status import EngineStatus, State, usd_per_mtok, whole
from nbllm.engines.supervised import Running, Supervised
from nbllm.engines.watch import Watch
from nbllm.errors import EngineError, EngineNotPossible
from nbllm.flow_context import tell_changed
from nbllm.settings import Endpoint

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}\Z", re.ASCII)


class Engine(Supervised):
    """One running engine. A context manager; `stop` leaves no process behind, and neither does the end of this process.

    name: its endpoint's. endpoint: what a client takes (settings or Client(endpoints=...)). model: the id to ask it by.
    simulated: no real model answers there.
    """

    def __init__(
        self,
        name: str,
        title: str,
        endpoint: Endpoint,
        asked: Asked,
        watch: Watch,
        *,
        process: SupervisedProcess | None = None,
        usd_per_hour: Decimal | None = None,
        simulated: bool = False,
    ) -> None:
        super().__init__(name, process)
        self.title = title
        self.endpoint = endpoint
        self.model = f"{name}/{asked.model}"
        self.usd_per_hour = usd_per_hour
        self.simulated = simulated
        self._watch = watch

    def __repr__(self) -> str:
        """Return what it is and how it stands; no key."""
        return f"Engine({self.name!r}, {self.title!r}, model={self.model!r}, state={self.state!r})"

    @property
    def state(self) -> State:
        """How it stands, as far as it was seen; asks nothing."""
        if self._stopped:
            return "stopped"
        if self._process is not None and not self._process.alive:
            return "ended"
        return "wedged" if self._watch.wedged else "silent" if self._watch.silent else "ready"

    def status(self) -> EngineStatus:
        """Ask it how it does.

        Takes at most some seconds for an engine of ours, which a thread watches. A server that is attached is looked at now: one
        token is asked for unless it is seen to work, and one that answers nothing takes some 20 s until it is told as wedged.
        """
        if self._process is None and not self._stopped:
            self._watch.look_now()
        found = self._watch.metrics() if self.state not in {"ended", "stopped"} else None
        if found is None and self.state in {"ready", "silent"}:
            self._watch.answers()
        pace = self._watch.tokens_per_s() if found is not None else None
        return EngineStatus(
            name=self.name,
            engine=self.title,
            model=self.model,
            state=self.state,
            base_url=self.endpoint.base_url,
            uptime_s=self.uptime_s,
            running=whole(found.running) if found else None,
            waiting=whole(found.waiting) if found else None,
            kv_cache_use=found.kv_cache_use if found else None,
            tokens_per_s=pace,
            usd_per_hour=self.usd_per_hour,
            usd_per_mtok=usd_per_mtok(self.usd_per_hour, pace),
            trouble=self._trouble(),
        )

    def _trouble(self) -> str:
        state = self.state
        if state == "ended" and self._process is not None:
            if self._process.problem:
                return f"It has ended: {self._process.problem}."
            reason = reason_of(self._process.log_tail(REASON_LINES), self._process.exit_code)
            why = "" if reason.code == "unknown" else f": {reason.said}"
            return "\n".join((f"It has ended{reason.how}{why}.", *reason.lines))
        if state == "wedged":
            what = "Stop it and start it again." if self._process is not None else "Who runs it has to start it again."
            return f"It says that it is healthy and completes nothing. {what}"
        return "It does not answer." if state == "silent" else ""

    def begin_stop(self) -> None:
        """Begin its end and do not wait: several engines end at the same time, and `stop` waits for each."""
        self._stopped = True
        _running.drop(self)
        tell_changed()
        self._watch.stop()
        if self._process is not None:
            self._process.let_go()

    def stop(self) -> None:
        """End it and everything it started; a server that somebody else runs is only let go of. Stopping twice is fine."""
        self.begin_stop()
        try:
            ended = self._process is None or self._process.stop()
        finally:
            self._watch.join()
        if not ended:
            raise EngineError(f"{self.title} could not be ended in time.", hint="Look for its processes with ps or a task manager.")


_running: Running[Engine] = Running()


def running() -> list[Engine]:
    """Return the engines of this process that were not stopped, in the order of their starts."""
    return _running.every()


def registered(engine: Engine) -> Engine:
    """Take an engine into what `running` lists. Raises EngineNotPossible when another thread was quicker with that name."""
    known = _running.add(engine)
    if known is not engine:
        raise _runs_already(known)
    tell_changed()
    return engine


_starting: list[str] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_starting.clear)


@contextmanager
def shown_as_starting(name: str) -> Iterator[None]:
    """Have `starting` list a name for as long as the block lasts."""
    _starting.append(name)
    tell_changed()
    try:
        yield
    finally:
        with suppress(ValueError):  # in a child that was forked meanwhile, whose list is empty
            _starting.remove(name)
        tell_changed()


def starting() -> list[str]:
    """Return the names of the engines of this process that are about to start, in the order in which they began."""
    return list(_starting)


def check_name(name: str) -> None:
    """Raise EngineNotPossible for a name that no endpoint of the settings can have."""
    if not _NAME.match(name):
        raise EngineNotPossible(
            f"name {name!r:.60} cannot name an endpoint. Nothing was started.", hint="Use letters, digits, '.', '_' and '-'."
        )


def refuse_twice(name: str) -> None:
    """Raise EngineNotPossible when an engine of that name runs; one that has ended makes room."""
    known = _running.get(name)
    if known is not None and known.state != "ended":
        raise _runs_already(known)
    if known is not None:
        known.stop()


def _runs_already(known: Engine) -> EngineNotPossible:
    return EngineNotPossible(f"{known.name} runs already ({known.model}).", hint="Stop it first, or give this one another name.")
