"""Puts jobs of dead workers back, and tells workers of what waits, from a worker's main process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from nbllm.errors import NbllmError
from nbllm.service.context import Service
from nbllm.service.redis_jobs import RedisJobs
from nbllm.service.sharing import namespace_of
from nbllm.storage.redis_link import Link

SWEEP_EVERY_S = 5.0
_END_S = 10.0
_log = logging.getLogger("nbllm.service")


class Sweeper:
    """See the module. It goes on whatever happens: nobody else here finds the jobs of a worker that was killed."""

    def __init__(self, service: Service, url: str, announce: Callable[[str], None], *, every_s: float = SWEEP_EVERY_S) -> None:
        self._service = service
        self._url = url
        self._announce = announce
        self._every_s = every_s
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._sweep()), name="nbllm-sweep", daemon=True)
        self._thread.start()

    async def _sweep(self) -> None:
        link = Link(self._url, namespace=namespace_of(self._service.name))
        store = RedisJobs(link, keep_s=self._service.config.job_keep_s, announce=self._announce)
        while not self._end.is_set():
            try:
                back = await store.sweep()
                if back:
                    _log.warning("%d jobs of workers that died are queued again.", len(back))
            except NbllmError as exc:
                _log.warning("Jobs cannot be swept just now: %s", exc.summary)
            except Exception:  # this thread is all that finds jobs of dead workers: whatever it was, the next round tries again
                _log.exception("Jobs could not be swept.")
            await asyncio.to_thread(self._end.wait, self._every_s)
        await link.aclose()

    def stop(self) -> None:
        """End."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(_END_S)
