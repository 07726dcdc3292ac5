"""One partition as this process has it in memory: blocks that follow the rows of the file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from nbllm.core.ports import Neighbour
from nbllm.storage import vector_rows
from nbllm.storage.vector_blocks import BLOCK_ROWS, EXACT_ROWS, Block, nearest
from nbllm.storage.vector_codes import Floats
from nbllm.storage.vector_rows import SLICE_ROWS, State

T = TypeVar("T")

MORE_CANDIDATES = 8
"""By how much more are looked for when those that were found are no longer in the file."""
_ROUNDS = 3
DEAD_SHARE = 1 / 8
"""Of so many dead rows a partition is made without them."""


class Reading(Protocol):
    """How rows are read (Database.read)."""

    def __call__(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `run` reads."""


class Partition:
    """Blocks of one partition. Searches are free of locks; what adds to blocks or replaces them holds `lock`.

    at: what the partition was when it was last looked at. read: reads the file.
    """

    def __init__(self, at: State, read: Reading) -> None:
        self.at = at
        self.lock = threading.Lock()
        self.blocks: list[Block] = []
        self.seen_id = 0
        """Up to which row number the blocks are complete."""
        self._read = read

    @property
    def rows(self) -> int:
        """How many rows are held, dead ones included."""
        return sum(block.rows for block in self.blocks)

    @property
    def dead_rows(self) -> int:
        """How many of them can no longer be found."""
        return sum(block.dead_rows for block in self.blocks)

    @property
    def memory_bytes(self) -> int:
        """What its arrays take."""
        return sum(block.memory_bytes for block in self.blocks)

    def is_of(self, now: State) -> bool:
        """Whether it is still the same partition of the same file."""
        return (now.token, now.number) == (self.at.token, self.at.number)

    def fill(self, from_files: Sequence[Block]) -> None:
        """Begin with blocks that were read from files, in the order of their rows; what is between them is read from the rows."""
        for block in from_files:
            while self.seen_id < block.after_id:
                self._read_slice(block.after_id)
            self.blocks.append(block)
            self.seen_id = block.last_id

    def catch_up(self, now: State, *, wait: bool = True) -> bool:
        """Add the rows that came since.

        wait: for as long as that takes. Without, False when another thread is at it, or when there are more than a few.
        """
        if self.seen_id >= now.last_id:
            return True
        if not self.lock.acquire(blocking=wait):
            return False
        try:
            while self.seen_id < now.last_id:
                if self._read_slice(now.last_id) == SLICE_ROWS and not wait:
                    return False
        finally:
            self.lock.release()
        return True

    def _read_slice(self, last_id: int) -> int:
        """Add the next rows up to a number, which is not beyond what is committed; return how many there were."""
        after_id = self.seen_id
        ids, vectors = self._read(lambda con: vector_rows.vectors(con, self.at, after_id, last_id))
        begin = 0
        while begin < len(ids):
            if not self.blocks or not self.blocks[-1].room or self.blocks[-1].saved:
                self.blocks.append(Block(self.at.dimensions, self.blocks[-1].last_id if self.blocks else 0))
            block = self.blocks[-1]
            end = min(len(ids), begin + block.room)
            block.add(ids[begin:end], vectors[begin:end], int(ids[end - 1]))
            begin = end
        self.seen_id = int(ids[-1]) if len(ids) == SLICE_ROWS else last_id
        return len(ids)

    def nearest(self, query: Floats, k: int, at_least: float) -> list[Neighbour]:
        """Return neighbours that are in the file at this moment. A row that is gone from it is never found again."""
        wanted, found = k, list[Neighbour]()
        for _ in range(_ROUNDS):
            candidates = nearest(tuple(self.blocks), query, wanted, at_least)
            if not len(candidates.ids):
                return []
            ids: list[int] = candidates.ids.tolist()
            rows = self._rows(ids[: 4 * k], query)
            found = [one for one in rows if one.score >= at_least]
            gone = set(ids[: 4 * k]) - {one.row_id for one in rows}
            self.kill(gone)
            if not gone or len(found) >= k or len(ids) < wanted:
                return found[:k]
            wanted *= MORE_CANDIDATES
        self.reconcile()
        candidates = nearest(tuple(self.blocks), query, k, at_least)
        return [one for one in self._rows(candidates.ids.tolist(), query) if one.score >= at_least][:k]

    def _rows(self, ids: Sequence[int], query: Floats) -> list[Neighbour]:
        if not ids:
            return []
        return self._read(lambda con: vector_rows.neighbours(con, self.at, ids, query))

    def kill(self, ids: Iterable[int]) -> None:
        """Never find these rows again."""
        gone = list(ids)
        if gone:
            for block in tuple(self.blocks):
                block.kill(gone)

    def reconcile(self, after_id: int = 0, last_id: int | None = None) -> list[int]:
        """Compare rows, all or those in (after_id, last_id], with those of the file; return which are gone."""
        last_id, found = self.seen_id if last_id is None else last_id, [after_id]
        while ids := self._ids(found[-1], last_id):
            found += ids
        there, gone = np.array(found, np.int64), list[int]()
        for block in tuple(self.blocks):
            here = block.ids[: block.rows]
            gone += here[(after_id < here) & (here <= last_id) & ~np.isin(here, there)].tolist()
        self.kill(gone)
        return gone

    def _ids(self, after_id: int, last_id: int) -> list[int]:
        return self._read(lambda con: vector_rows.ids(con, self.at, after_id, last_id, 8 * SLICE_ROWS))

    @property
    def unsaved(self) -> list[Block]:
        """The blocks to which nothing will be added and that are in no file."""
        return [block for block in self.blocks if not block.saved and (not block.room or block is not self.blocks[-1])]

    @property
    def wants_compaction(self) -> bool:
        """Whether much of it is dead."""
        dead = self.dead_rows
        return dead > EXACT_ROWS and dead > DEAD_SHARE * self.rows

    def compact(self) -> None:
        """Leave dead rows out of the blocks, and make one of two that fit into one."""
        with self.lock:
            made: list[Block] = []
            for block in self.blocks:
                clean = block.without_dead() if block.dead_rows else block
                if made and made[-1].rows + clean.rows <= BLOCK_ROWS:
                    made[-1] = made[-1].joined(clean)
                else:
                    made.append(clean)
            self.blocks = made

    def clean(self, block: Block) -> Block:
        """Leave what the file no longer has out of one block, and return what takes its place."""
        self.reconcile(block.after_id, block.last_id)
        if not block.dead_rows:
            return block
        with self.lock:
            cleaned = block.without_dead()
            self.blocks = [cleaned if one is block else one for one in self.blocks]
        return cleaned
