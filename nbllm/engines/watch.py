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

    A busy engine is not asked: its count of tokens moves.
    """

    def __init__(
        self, door: Door, asked: Asked, names: MetricNames | None, rhythm: Rhythm, alive: Callable[[], bool] = lambda: True
    ) -> None:
        self.wedged = False
        self.silent = False
        self._door = door
        self._asked = asked
        self._names = names
        self._rhythm = rhythm
        self._alive = alive
        self._pace = Pace()
        self._lock = threading.Lock()
        self._last_tokens: float | None = None
        self._own_tokens = 0
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

    def look(self) -> None:
        """See whether it completes: its count of tokens moved since the last look, or it answers one question."""
        if self._moved():
            self.wedged = self.silent = False
            return
        try:
            answer = self._door.ask(
                self._door.v1(self._asked.path), self._asked.body(), limit_s=self._rhythm.limit_s, tick=self._give_up_if_stopped
            )
        except _Stopped:
            return
        except TooLate:
            # With a long queue one token may take its time: what tells is whether anything moves.
            self.wedged, self.silent = not self._moved(), False
        except NoAnswer:
            self.wedged, self.silent = False, True
        else:
            self.wedged = self.silent = False
            if completed(answer):
                self._own_tokens += 1

    def _moved(self) -> bool:
        found = self.metrics()
        now = None if found is None else found.output_tokens
        before, self._last_tokens = self._last_tokens, now
        return before is not None and now is not None and now - before > 1  # one token may be our own

    def _give_up_if_stopped(self) -> None:
        if self._stop.is_set() or not self._alive():
            raise _Stopped


class _Stopped(Exception):
    pass
