"""What is done while somebody listens: the picture kept up, read anew where it must be, and commands carried out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.crew import Crew
from nbllm.current import client_if_any
from nbllm.flow_context import CELLS
from nbllm.notebook.lab.commands import Commands, refused
from nbllm.notebook.lab.picture import Picture
from nbllm.notebook.lab.reading import may_have_engines, now, read_session, read_standing, read_today
from nbllm.notebook.lab.values import name
from nbllm.notebook.lab.watching import Watching

if TYPE_CHECKING:
    from nbllm.client import Client
    from nbllm.notebook.lab.listener import Listener

_log = logging.getLogger("nbllm")
IDLE_S = 5.0
"""How often budgets and endpoints are looked at when nothing happens here: other processes spend, and breakers close by time."""
STANDING_S = 1.0
TODAY_S = 60.0
SESSION_S = 2.0
NAMED_S = 4.0
"""How often a session is read that other processes share (NBLLM_SESSION), and this day with it: what they ask is told by the ledger
alone."""
_LAZY = 5.0
"""What took long is done again only after so many times as long."""


class _Reading:
    """One thing that is read in a worker thread, again and again. Asked by one thread."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.next_s = 0.0
        self._future: Future[tuple[Any, float]] | None = None
        self._began_s = 0.0

    def begin(self, crew: Crew, wake: Callable[[], object], work: Callable[[], Any], now_s: float) -> bool:
        """Begin to read, unless it is being read or was just now; whether it has begun."""
        if self._future is not None or now_s < self.next_s:
            return False
        self._began_s = now_s

        def timed() -> tuple[Any, float]:
            began_s = time.monotonic()
            return work(), time.monotonic() - began_s

        self._future = crew.submit(timed)
        self._future.add_done_callback(lambda _: wake())
        return True

    def take(self) -> Any:
        """Return what was read, once; None when there is nothing new, or it could not be read."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        try:
            found, took_s = future.result()
        except Exception:  # a disk that is gone, a client that was closed: what is known stays
            _log.debug("The panel could not read what it shows.", exc_info=True)
            found, took_s = None, self.every_s
        self.next_s = self._began_s + max(self.every_s, took_s * _LAZY)
        return found

    def forget(self) -> None:
        """What is being read is of no use any more."""
        self._future, self.next_s = None, 0.0


class Desk:
    """One for as long as somebody listens. Everything but `command` is called by one thread. early: who has looked on so far."""

    def __init__(
        self, client: Callable[[], Client], wake: Callable[[], object], version: str, began: float, early: Watching | None = None
    ) -> None:
        self.watching = early or Watching(wake)
        self.watching.wake, self.watching.keeps_ended = wake, True
        self._commands = Commands(client, self.watching, version)
        self._picture = Picture(self.watching)
        self._wake = wake
        self._version = version
        self._began = began
        self._crew = Crew(2, "nbllm-lab-work")
        self._client: Client | None = None
        self._session = _Reading(SESSION_S)
        self._standing = _Reading(STANDING_S)
        self._today = _Reading(TODAY_S)
        self._looked_s = 0.0
        self._moved = True
        self._was_open = False

    def close(self) -> None:
        """Take no more work; what is under way is not waited for."""
        self._crew.shutdown(wait=False, cancel_futures=True)

    def command(self, command: Any, listener: Listener) -> None:
        """Carry out a command, and send its result. From any thread; what takes a moment is done in a worker."""
        tag = listener.tag

        def do() -> None:
            listener.say(dict(self._commands.done(command, tag)))
            self._moved = True
            self._wake()

        if not self._commands.takes_a_moment(command):
            do()
        elif listener.takes_on():
            try:
                self._crew.submit(do).add_done_callback(lambda _: listener.is_through())
            except RuntimeError:  # this desk was closed just now
                listener.is_through()
                listener.say(dict(refused(command)))
        else:
            listener.say(dict(refused(command)))

    def tick(self, listeners: Sequence[Listener]) -> float:
        """Bring everybody up to date; return after how many seconds to do it again, if nothing happens before."""
        now_s, now_epoch = now()
        self._follow(client_if_any())
        # In this order: of what was read here, all that had ended by then is among the records below.
        session = self._session.take()
        records = self.watching.take()
        self._picture.take(records)
        if session is not None:
            self._picture.take_session(session)
        changed = self.watching.has_changed()
        self._moved = self._moved or changed or bool(records) or session is not None or self.watching.is_busy
        complete = self._read(now_s)
        shared = self._picture.state(now_s, now_epoch)
        client = self._client
        facts = {
            "nbllm": self._version,
            "session": "" if client is None else name(client.session),
            "started_at": self._began,
            "pid": os.getpid(),
        }
        for listener in listeners:
            mode = CELLS.modes.get(listener.tag)
            listener.tick({**shared, "cache_mode": mode} if mode else shared, now_s, facts, complete=complete)
        fastest_s = 1 / max((listener.updates_per_s for listener in listeners), default=1.0)
        if self.watching.is_busy or not complete:
            return fastest_s
        return max(fastest_s, self._standing.next_s - now_s) if self._moved else IDLE_S

    def _follow(self, client: Client | None) -> None:
        """Show another client's session when a notebook has set another: its home and its session may be others."""
        if client is self._client:
            return
        self._client, self._picture, self._was_open = client, Picture(self.watching), False
        for reading in (self._session, self._standing, self._today):
            reading.forget()
        self._today.every_s = TODAY_S
        if client is not None:
            self.watching.of(client.settings.home, client.session)
            self._today.every_s = NAMED_S if client.settings.session else TODAY_S

    def _is_due_again(self, now_s: float) -> bool:
        """Whether other processes may have added to the session: one that has a name is of all who name it."""
        client = self._client
        return client is not None and bool(client.settings.session) and now_s >= self._session.next_s + NAMED_S - SESSION_S

    def _read(self, now_s: float) -> bool:
        """Take in what was read, and have read what is due; whether the session is known."""
        client, picture = self._client, self._picture
        self._read_today(client, now_s)
        is_open = client is not None and client.is_open
        looks = self._moved or now_s - self._looked_s >= IDLE_S
        if is_open or may_have_engines():
            self._read_standing(client, now_s, looks=looks)
        else:
            self._moved = False  # there is nothing to look at until something happens
        if client is None or not is_open:
            return True
        wanted = not picture.exact or self.watching.lost or (looks and self.watching.has_earlier) or self._is_due_again(now_s)
        if wanted and self._session.begin(self._crew, self._wake, lambda: read_session(client), now_s):
            picture.begins_to_read()
        return picture.exact or picture.was_read

    def _read_standing(self, client: Client | None, now_s: float, *, looks: bool) -> None:
        """Take in how budgets and endpoints stand, and have it read when it is due: engines start before anything was asked."""
        picture = self._picture
        if (standing := self._standing.take()) is not None:
            picture.take_standing(standing)
        models, refused = picture.models(), picture.refused
        work = partial(read_standing, client, models, refused)
        if looks and self._standing.begin(self._crew, self._wake, work, now_s):
            self._moved, self._looked_s = False, now_s

    def _read_today(self, client: Client | None, now_s: float) -> None:
        """Take in what this day has cost, and have it read when it is due: also before anything was asked of a model here."""
        is_open = client is not None and client.is_open
        if self._was_open and not is_open:  # closed: what is known stays; read anew, its own calls would be among those of others
            self._today.forget()
            return
        if is_open is not self._was_open:  # what the session has used is no longer among what others have
            self._was_open = is_open
            self._today.forget()
            if client is not None and client.settings.session:
                self._picture.take_today(None)
        if (today := self._today.take()) is not None:
            self._picture.take_today(today)
        self._today.begin(self._crew, self._wake, lambda: read_today(client), now_s)
