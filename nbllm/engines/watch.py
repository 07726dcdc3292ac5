"""Watching a running engine: does it still complete? An answer at /health does not say so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from nbllm.engines.catalog import MetricNames
from nbllm.engines.door import Door, NoAnswer, TooLate
from nbllm.engines.ready import Asked, completed
from nbllm.engines.status import Metrics, Pace, metrics_of, names_on

METRICS_S = 2.0
PATIENCE_S = 600.0
"""How long one question waits behind others, as long as they are worked on."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """every_s: seconds between looks. limit_s: how long one token may take. seen_s is under the 30 s that are promised."""

    every_s: float = 5.0
    limit_s: float = 15.0

    @property
    def seen_s(self) -> float:
        """How long a wedge takes to be seen at the most: the next look still finds what was written before it, the one after that
        asks, and before and after the question the metrics are waited for.
        """
        return 2 * self.every_s + self.limit_s + 2 * METRICS_S


class Watch:
    """Looks after one engine, on a thread of its own once started, as long as it lives: then another program may have its port.

    A busy engine is not asked: its counts move. One that is not ours is looked at when somebody asks for its status.
    """

    def __init__(
        self,
        door: Door,
        asked: Asked,
        names: MetricNames | None,
        rhythm: Rhythm,
        alive: Callable[[], bool] = lambda: True,
        *,
        asks: bool = True,
    ) -> None:
        """names: None for those of whichever engine it is. asks: whether it may be asked for a token to see that it answers."""
        self.wedged = False
        self.silent = False
        self._door = door
        self._asked = asked
        self._names = names
        self._rhythm = rhythm
        self._alive = alive
        self._asks = asks
        self._pace = Pace()
        self._lock = threading.Lock()
        self._last: tuple[float, ...] | None = None
        self._own_tokens = 0
        self._quiet_since_s = self._seen_s = 0.0
        self._looked_s = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look now and then."""
        self._thread = threading.Thread(target=self._run, name="nbllm-engine-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have it end; a question that is on its way is given up. Does not wait."""
        self._stop.set()

    def join(self) -> None:
        """Wait for its end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(METRICS_S + 1.0)

    def metrics(self) -> Metrics | None:
        """Ask for the engine's numbers now, our own questions left out; None when it does not tell them."""
        if self._names is not None and not self._names.output_tokens and not self._names.running:
            return None
        try:
            answer = self._door.ask(self._door.root("/metrics"), limit_s=METRICS_S)
        except NoAnswer:
            return None
        if answer.status != 200:
            return None
        page = answer.body.decode("utf-8", "replace")
        found = metrics_of(page, self._names or names_on(page))
        if found.output_tokens is not None:
            with self._lock:
                self._pace.add(time.monotonic(), max(0.0, found.output_tokens - self._own_tokens))
        return found

    def answers(self) -> bool:
        """Ask now whether it answers at all, and remember it."""
        try:
            self._door.ask(self._door.v1("/models"), limit_s=METRICS_S)
        except NoAnswer:
            self.silent = True
        else:
            self.silent = False
        return not self.silent

    def tokens_per_s(self) -> float | None:
        """Return how fast it writes, over the last 30 s."""
        with self._lock:
            return self._pace.tokens_per_s()

    def _run(self) -> None:
        self.metrics()
        while not self._stop.wait(self._rhythm.every_s) and self._alive():
            self.look()

    def look_now(self) -> None:
        """Look for somebody who asks how it does, of a server that no thread watches: at most once in `every_s`, and no longer
        than `limit_s` with the metrics around it. One token is asked for where the counts do not move.
        """
        if self._thread is None and self._asks and time.monotonic() - self._looked_s >= self._rhythm.every_s:
            if self._last is None:
                self._moved()
            self.look(patience_s=self._rhythm.limit_s)
            self._looked_s = time.monotonic()

    def look(self, patience_s: float = PATIENCE_S) -> None:
        """See whether it completes: its work moved since the last look, or it answers one question.

        A long prompt before ours may take minutes, in which not one token is written: an engine is wedged when none of its
        counts moves for `limit_s` while it has a question. patience_s: how long the question is kept while they do.
        """
        if self._moved():
            self.wedged = self.silent = False
            return
        asked_s = self._quiet_since_s = self._seen_s = time.monotonic()
        try:
            answer = self._door.ask(self._door.v1(self._asked.path), self._asked.body(), limit_s=patience_s, tick=self._look_around)
        except _Stopped:
            return
        except _Quiet:
            self.wedged, self.silent = True, False
        except TooLate:
            self.wedged, self.silent = not self._moved() and self._quiet_since_s == asked_s, False
        except NoAnswer:
            self.wedged, self.silent = False, True
        else:
            self.wedged = self.silent = False
            self._last = None  # what moves next is not what this question moved
            if completed(answer):
                self._own_tokens += 1

    def _moved(self) -> bool:
        """Whether the engine worked on anything since it was last asked for its counts."""
        found = self.metrics()
        now = None if found is None else found.work
        before, self._last = self._last, now
        return before is not None and now is not None and now != before

    def _look_around(self) -> None:
        """While a question waits: end it when the watch is stopped, or when nothing has moved for as long as one token may take."""
        if self._stop.is_set() or not self._alive():
            raise _Stopped
        now_s = time.monotonic()
        if now_s - self._seen_s >= self._rhythm.every_s / 2:
            if self._moved():
                self._quiet_since_s = time.monotonic()
                self.wedged = self.silent = False
            self._seen_s = now_s = time.monotonic()
        if now_s - self._quiet_since_s >= self._rhythm.limit_s:
            raise _Quiet


class _Stopped(Exception):
    pass


class _Quiet(Exception):
    """Nothing moves."""
