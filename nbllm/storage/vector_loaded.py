"""The partitions that a process has in memory: loaded when they are first asked for, let go of when others need the room."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

from nbllm.errors import NbllmError
from nbllm.storage.vector_files import BlockFiles
from nbllm.storage.vector_partition import Partition, Reading
from nbllm.storage.vector_rows import State

CARE_EVERY_S = 5.0
FINISH_S = 2.0


class Loaded:
    """Partitions by name, the least recently used last to be kept. limit_bytes: what they may take together."""

    def __init__(self, read: Reading, files: BlockFiles, limit_bytes: int) -> None:
        self._read = read
        self._files = files
        self._limit_bytes = limit_bytes
        self._guard = threading.Lock()
        self._partitions: OrderedDict[str, Partition] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._care_at_s = 0.0
        self._caring = False

    def get(self, name: str, now: State) -> Partition | None:
        """Return a partition that is loaded already, and is still the same."""
        with self._guard:
            here = self._partitions.get(name)
            if here is None or not here.is_of(now):
                return None
            self._partitions.move_to_end(name)
        return here

    def load(self, name: str, now: State) -> Partition:
        """Return a partition as it is now, loaded if it has to be. Takes as long as that takes."""
        with self._guard:
            lock = self._loading.setdefault(name, threading.Lock())
        with lock:
            here = self.get(name, now)
            if here is None:
                here = Partition(now, self._read)
                here.fill(self._files.load(now))
            here.catch_up(now)
            with self._guard:
                self._partitions[name] = here
                self._partitions.move_to_end(name)
        self.let_go()
        return here

    def let_go(self) -> None:
        """Keep to the limit; one partition stays, however large."""
        with self._guard:
            sizes = {name: one.memory_bytes for name, one in self._partitions.items()}
            total = sum(sizes.values())
            for name, size in sizes.items():
                if total <= self._limit_bytes or len(self._partitions) == 1:
                    return
                del self._partitions[name]
                self._loading.pop(name, None)
                total -= size

    def forget(self, name: str | None = None) -> None:
        """Let go of one partition, or of all."""
        with self._guard:
            for one in [name] if name is not None else list(self._partitions):
                self._partitions.pop(one, None)

    def kill(self, number: int, ids: Iterable[int]) -> None:
        """Never find these rows of a partition again."""
        for one in self._all():
            if one.at.number == number:
                one.kill(ids)

    @property
    def memory_bytes(self) -> int:
        """What all arrays take."""
        return sum(one.memory_bytes for one in self._all())

    def _all(self) -> list[Partition]:
        with self._guard:
            return list(self._partitions.values())

    def wants_care(self, name: str) -> bool:
        """Whether a thread should see to a partition; asked after each search, and said once every CARE_EVERY_S."""
        now_s = time.monotonic()
        if self._caring or now_s < self._care_at_s:
            return False
        here = self._partitions.get(name)
        if here is None or not (here.wants_compaction or here.unsaved):
            return False
        self._care_at_s, self._caring = now_s + CARE_EVERY_S, True
        return True

    def care(self, name: str) -> None:
        """Leave out what is dead, and write what is whole into files."""
        try:
            here = self._partitions.get(name)
            if here is not None:
                self._see_to(here)
        finally:
            self._caring = False

    def finish(self) -> None:
        """Write what is whole into files before the end, for FINISH_S at most: the next start is the quicker for it."""
        until_s = time.monotonic() + FINISH_S
        for here in self._all():
            with suppress(NbllmError):  # the rows are there; files are copies
                self._see_to(here, until_s)

    def _see_to(self, here: Partition, until_s: float = math.inf) -> None:
        if here.wants_compaction:
            here.compact()
            self._files.keep_only(here.at, here.blocks)
        for block in here.unsaved:
            if time.monotonic() > until_s:
                return
            self._files.save(here.at, here.clean(block))
            # What was forgotten while it was being written was not there yet for its process to overwrite.
            self._files.forget_rows({here.at.number: here.reconcile(block.after_id, block.last_id)})
