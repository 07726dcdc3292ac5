"""Jobs that workers run: a replica only looks after them, and a worker takes one when it is told to."""

from __future__ import annotations

import asyncio
import logging
import time

from nbllm.service.jobs import JobHands
from nbllm.service.ports import Job

WORKER = "celery --app nbllm.service.worker worker"
WAITED_S = 30.0
SAY_EVERY_S = 60.0
_log = logging.getLogger("nbllm.service")


class RemoteHands(JobHands):
    """Sweeps and sends webhooks, as JobHands does, and takes jobs only by `run_next`."""

    _say_again_s = float("-inf")

    def start(self) -> None:
        """Begin to look after jobs."""
        self._loops = [asyncio.create_task(self._look_after())]

    def taken(self, job: Job) -> None:
        """Do nothing: the store tells the workers."""

    async def _swept(self) -> None:
        """Say so when jobs wait and nobody takes them."""
        found = await self.store.standing()
        waited_s = found.oldest_s(time.time())
        if found.running or waited_s < WAITED_S or time.monotonic() < self._say_again_s:
            return
        self._say_again_s = time.monotonic() + SAY_EVERY_S
        _log.warning("Jobs wait (%d, the oldest for %.0f s), and no worker takes them: %s", found.queued, waited_s, WORKER)

    async def run_next(self) -> bool:
        """Take the next job and see it through; False when there is none. Raises StorageError when that cannot be known."""
        if self._stopping:
            return False
        lease = await self.store.claim()
        if lease is None:
            return False
        task = asyncio.create_task(self._run(lease))
        self._running.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait([task])
        return True
