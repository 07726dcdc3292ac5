"""Some rows of one partition in memory, as arrays that are only ever added to; and the search through a list of such blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbllm.storage.vector_codes import (
    BITS,
    WORDS,
    Codes,
    Floats,
    encode,
    error_of,
    limit,
    ones,
    scores,
    signs_of,
)

BLOCK_ROWS = 65_536
"""A word of so many rows fits the caches of a processor, and a file of such a block is 29 MB for 384 dimensions."""
EXACT_ROWS = 1024
"""A block of no more is compared as a whole: that takes no longer than to pass over most of it first."""
STEPS = (2, WORDS)
"""After so many words of sign bits the rows that differ too much are left out."""
FEW = 1 / 8
"""So many rows are looked up one by one; of more, all are compared in the next words too."""
CROWD = 4096
"""When more rows than this pass, the best of them narrow down the others."""
_SAMPLE = 512
_MOST_COMPARED = 1 << 16
_BEST_MARGIN = 0.1

Rows = NDArray[np.int64]


class Candidates(NamedTuple):
    """Row numbers, best first, and their scores but for what rounding to 8 bits changes."""

    ids: Rows
    scores: Floats


class Block:
    """Up to BLOCK_ROWS rows in the order of their numbers. One thread at a time adds; any thread may search meanwhile.

    after_id: the block holds all rows of its partition that are in (after_id, last_id], but for those that were deleted.
    """

    def __init__(self, dimensions: int, after_id: int, *, capacity: int = 256) -> None:
        self.after_id = after_id
        self.last_id = after_id
        self.rows = 0
        self.dead_rows = 0
        self.saved = False
        """Whether a file holds it as it is."""
        self.ids: Rows = np.empty(capacity, np.int64)
        self.dead: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self.codes: Codes = _room(dimensions, capacity)

    @classmethod
    def of(cls, ids: Rows, codes: Codes, after_id: int, last_id: int) -> Block:
        """Return a block made of arrays that are whole, as from a file."""
        block = cls(codes[1].shape[1], after_id, capacity=0)
        block.ids, block.codes, block.dead = ids, codes, np.zeros(len(ids), np.bool_)
        block.rows, block.last_id = len(ids), last_id
        return block

    @property
    def memory_bytes(self) -> int:
        """What its arrays take."""
        return sum(array.nbytes for array in (self.ids, self.dead, *self.codes))

    @property
    def alive_rows(self) -> int:
        """How many rows can be found."""
        return self.rows - self.dead_rows

    @property
    def room(self) -> int:
        """How many rows can still be added."""
        return BLOCK_ROWS - self.rows

    def add(self, ids: Rows, vectors: Floats, last_id: int) -> None:
        """Append rows, at most `room` of them; their vectors are of unit length. last_id: up to where they are complete."""
        self._append(ids, encode(vectors), last_id)

    def _append(self, ids: Rows, codes: Codes, last_id: int) -> None:
        begin, end = self.rows, self.rows + len(ids)
        if end > len(self.ids):
            self._grow(min(BLOCK_ROWS, max(end, 2 * len(self.ids))))
        self.ids[begin:end] = ids
        self.codes[0][:, begin:end] = codes[0]
        self.codes[1][begin:end] = codes[1]
        self.codes[2][begin:end] = codes[2]
        self.saved = False
        self.rows, self.last_id = end, last_id  # after the rest: who searches sees whole rows

    def _grow(self, capacity: int) -> None:
        n = self.rows
        ids, dead, codes = np.empty(capacity, np.int64), np.zeros(capacity, np.bool_), _room(self.codes[1].shape[1], capacity)
        ids[:n], dead[:n] = self.ids[:n], self.dead[:n]
        codes[0][:, :n], codes[1][:n], codes[2][:n] = self.codes[0][:, :n], self.codes[1][:n], self.codes[2][:n]
        self.ids, self.dead, self.codes = ids, dead, codes

    def kill(self, ids: Iterable[int]) -> int:
        """Never find these rows again; return how many of them there were here."""
        wanted = np.unique(np.fromiter(ids, np.int64))
        places = np.searchsorted(self.ids[: self.rows], wanted)
        places = places[places < self.rows]
        places = places[np.isin(self.ids[places], wanted) & ~self.dead[places]]
        self.dead[places] = True
        self.dead_rows += len(places)
        return len(places)

    def without_dead(self) -> Block:
        """Return the same block without what is dead in it."""
        alive = np.flatnonzero(~self.dead[: self.rows])
        codes = (np.ascontiguousarray(self.codes[0][:, alive]), self.codes[1][alive], self.codes[2][alive])
        return Block.of(self.ids[alive], codes, self.after_id, self.last_id)

    def joined(self, after: Block) -> Block:
        """Return one block of this one and the next."""
        a, b = self.rows, after.rows
        block = Block(self.codes[1].shape[1], self.after_id, capacity=a + b)
        for one, begin in ((self, 0), (after, a)):
            n = one.rows
            block.dead[begin : begin + n] = one.dead[:n]
            words, coordinates, scales = one.codes
            block._append(one.ids[:n], (words[:, :n], coordinates[:n], scales[:n]), one.last_id)
        block.dead_rows = self.dead_rows + after.dead_rows
        return block

    def passing(self, query_signs: NDArray[np.uint64], at_least: float) -> tuple[Rows, NDArray[np.uint8]]:
        """Return the places of rows that may be neighbours of at least that cosine, and in how many bits they differ."""
        n, bits, done = self.rows, self.codes[0], 1
        scratch.make_room(n)
        # 8 bits would run over above 255 of 384, that is beyond 120 degrees: such a row may pass, and is then compared.
        different, places = scratch.first(bits[0, :n], query_signs[0]), None
        for words in STEPS:
            most = limit(at_least, 64 * words)
            if places is None:
                for word in range(done, words):
                    scratch.add(bits[word, :n], query_signs[word], different)
                near = np.flatnonzero(different <= most)
                if words == WORDS or len(near) <= FEW * n:
                    different, places = different[near], near
            else:
                more = ones(bits[done:words, places] ^ query_signs[done:words, None])
                different = different + np.add.reduce(more, axis=0, dtype=np.uint8)
                near = np.flatnonzero(different <= most)
                different, places = different[near], places[near]
            done = words
        assert places is not None  # noqa: S101 - the last step finds them
        if self.dead_rows:
            alive = np.flatnonzero(~self.dead[places])
            different, places = different[alive], places[alive]
        return places, different

    def all_alive(self) -> Rows:
        """Return the places of all rows that can be found."""
        return np.flatnonzero(~self.dead[: self.rows])

    def scores(self, places: Rows, query: Floats) -> Floats:
        """Return the cosines of the rows at these places."""
        return scores(self.codes[1][places], self.codes[2][places], query)


class Scratch(threading.local):
    """Memory of a thread for what is worked out on the way: to ask the system for it anew takes a fifth of a search."""

    def __init__(self) -> None:
        self._words = np.empty(0, np.uint64)
        self._ones = np.empty(0, np.uint8)

    def make_room(self, rows: int) -> None:
        """See to it that there is room for so many."""
        if len(self._words) < rows:
            self._words, self._ones = np.empty(rows, np.uint64), np.empty(rows, np.uint8)

    def first(self, words: NDArray[np.uint64], of_query: np.uint64) -> NDArray[np.uint8]:
        """Return in how many bits each word differs from the query's."""
        np.bitwise_xor(words, of_query, out=self._words[: len(words)])
        different: NDArray[np.uint8] = ones(self._words[: len(words)])
        return different

    def add(self, words: NDArray[np.uint64], of_query: np.uint64, different: NDArray[np.uint8]) -> None:
        """Add to `different` in how many bits each word differs from the query's."""
        n = len(words)
        np.bitwise_xor(words, of_query, out=self._words[:n])
        ones(self._words[:n], out=self._ones[:n])
        np.add(different, self._ones[:n], out=different)


scratch = Scratch()


def nearest(blocks: Sequence[Block], query: Floats, k: int, at_least: float) -> Candidates:
    """Return the rows with the largest scores >= at_least: k of them, and those that rounding may have put behind these."""
    found: list[tuple[Block, Rows, NDArray[np.uint8]]] = []
    query_signs: NDArray[np.uint64] | None = None
    for block in blocks:
        if block.rows <= EXACT_ROWS:
            places = block.all_alive()
            found.append((block, places, np.zeros(len(places), np.uint8)))
            continue
        if query_signs is None:
            query_signs = signs_of(query)
        found.append((block, *block.passing(query_signs, at_least)))
    found = _narrowed(found, query, k, at_least)
    ids = [block.ids[places] for block, places, _ in found if len(places)]
    if not ids:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.float32))
    near = [block.scores(places, query) for block, places, _ in found if len(places)]
    error = max(error_of(float(block.codes[2][places].max())) for block, places, _ in found if len(places))
    return _best(np.concatenate(ids), np.concatenate(near), k, at_least, error)


def _best(ids: Rows, near: Floats, k: int, at_least: float, error: float) -> Candidates:
    lowest = at_least - error
    if len(near) > k:
        lowest = max(lowest, float(np.partition(near, -k)[-k]) - 2.0 * error)
    chosen = np.flatnonzero(near >= lowest)
    order = chosen[np.argsort(-near[chosen], kind="stable")][: 4 * k]
    return Candidates(ids[order], near[order])


def _narrowed(
    found: list[tuple[Block, Rows, NDArray[np.uint8]]], query: Floats, k: int, at_least: float
) -> list[tuple[Block, Rows, NDArray[np.uint8]]]:
    """Of a crowd, leave those that may be as near as the best of those with the fewest different bits, less a margin."""
    if sum(len(places) for _, places, _ in found) <= CROWD:
        return found
    counts = np.bincount(np.concatenate([different for _, _, different in found]), minlength=256).cumsum()
    few = int(np.searchsorted(counts, _SAMPLE))
    tried = [block.scores(places[different <= few], query) for block, places, different in found]
    best = np.sort(np.concatenate(tried))[::-1]
    bound = max(at_least, float(best[0]) - _BEST_MARGIN, float(best[min(k, len(best)) - 1]))
    most = max(few, min(limit(bound, BITS), int(np.searchsorted(counts, _MOST_COMPARED)) - 1))
    return [(block, places[different <= most], different[different <= most]) for block, places, different in found]


def _room(dimensions: int, rows: int) -> Codes:
    return np.empty((WORDS, rows), np.uint64), np.empty((rows, dimensions), np.int8), np.empty(rows, np.float32)
