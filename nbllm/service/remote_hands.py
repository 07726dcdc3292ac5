"""Jobs that workers run: a replica only looks after them, and a worker takes one when it is told to."""

from __future__ import annotations

import asyncio

from nbllm.service.jobs import JobHands
from nbllm.service.ports import Job


class RemoteHands(JobHands):
    """Sweeps and sends webhooks, as JobHands does, and takes jobs only by `run_next`."""

    def start(self) -> None:
        """Begin to look after jobs."""
        self._loops = [asyncio.create_task(self._look_after())]

    def taken(self, job: Job) -> None:
        """Do nothing: the store tells the workers."""

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
