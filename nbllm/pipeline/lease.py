"""The lease under which one process runs a key for all processes on a home: held, renewed, given back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nbllm.core.ports import Flights, Lease
from nbllm.errors import StorageError
from nbllm.pipeline.stage import within

LEASE_S = 10.0
"""Life of a lease between processes; renewed each third of it. Long enough for a stalled process, short enough for a dead one."""
_RELEASE_S = 0.05
"""How long an answer waits at most until its lease is given back; one that is not expires by itself."""


class Holder:
    """Keeps a lease alive while its run lasts."""

    def __init__(self, leases: Flights, lease: Lease) -> None:
        self._leases = leases
        self._lease: Lease | None = lease
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(LEASE_S / 3, self._renew)

    async def holds(self) -> bool:
        """Whether the lease is still this one. One that cannot be read is not held."""
        lease = self._lease
        if lease is None:
            return False
        try:
            return await self._leases.holds(lease)
        except StorageError:
            return False

    def _renew(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._prolong())

    async def _prolong(self) -> None:
        if self._lease is not None:
            with suppress(StorageError):  # busy: the next third of the lease tries again
                self._lease = await self._leases.renew(self._lease, lease_s=LEASE_S)
        if self._lease is not None:
            self._timer = asyncio.get_running_loop().call_later(LEASE_S / 3, self._renew)

    async def release(self) -> None:
        """Give it back and renew it no more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(StorageError, TimeoutError):
                await within(_RELEASE_S, self._leases.release(lease))
