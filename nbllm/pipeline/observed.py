"""The ledger's newest answers, kept at hand for routes that go by numbers: read once, then followed as calls end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future

from nbllm.core.messages import AttemptStatus, CallRecord
from nbllm.core.ports import Ledger
from nbllm.core.records import HELPING, Seen
from nbllm.core.routing_numbers import Numbers
from nbllm.pipeline.record import Hook
from nbllm.pipeline.stage import Clock, looked_at
from nbllm.pipeline.workers import Workers

_log = logging.getLogger("nbllm")
READ_ROWS = 2000
"""How many of the newest attempts are read: about 5 ms, in a worker thread."""
AGAIN_S = 60.0
"""After how long the ledger is read again, for what other processes have seen."""
_WAIT_S = 0.25
"""How long a call waits at most for the first reading."""


class Observed:
    """Numbers of each model."""

    def __init__(self, ledger: Ledger, clock: Clock, workers: Workers, listen: Callable[[Hook], object]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._workers = workers
        self._listen: Callable[[Hook], object] | None = listen
        self._numbers = Numbers()
        self._read_at_s: float | None = None
        self._reading: Future[Numbers] | None = None

    def heard(self, record: CallRecord) -> None:
        """Take in a call of this process that has ended."""
        for attempt in record.attempts:
            if attempt.status is AttemptStatus.DONE and attempt.purpose not in HELPING:
                self._numbers.add(Seen(attempt.rung, attempt.latency_s, attempt.usage.output_tokens))

    async def numbers(self) -> Numbers:
        """Return what is known. The first call waits a moment for the ledger; later ones have it read behind their backs."""
        now_s = self._clock.now_s()
        if self._listen is not None:  # from the first route on that asks: a listener costs each call a little
            listen, self._listen = self._listen, None
            listen(self.heard)
        if self._reading is None and (self._read_at_s is None or now_s - self._read_at_s > AGAIN_S):
            self._reading = self._workers.submit(lambda: Numbers(self._ledger.newest_answers(READ_ROWS)))
        if self._reading is not None:
            if self._read_at_s is None and not self._reading.done():
                waiting = asyncio.wrap_future(self._reading)
                waiting.add_done_callback(looked_at)
                await asyncio.wait([waiting], timeout=_WAIT_S)
            self._take()
        return self._numbers

    def _take(self) -> None:
        """Take over what was read, once it is there. A ledger that cannot be read is no reason not to answer."""
        if self._reading is None or not self._reading.done():
            return
        reading, self._reading = self._reading, None
        self._read_at_s = self._clock.now_s()
        try:
            self._numbers = reading.result()
        except Exception:  # whatever it is, the route goes on with what this process has seen
            _log.warning("The ledger could not be read for a route.", exc_info=True)
