"""Whole blocks as files, so that a process with a million rows begins in a second: `vectors/NUMBER-AFTER-LAST.block`.

They are copies. One that is cut, changed, of another file of rows or of another version of the code is deleted, and its rows are
read and encoded anew. A file is written under another name first, so that a kill leaves a whole one or none. What is forgotten is
overwritten in its place, and its number with 0.
"""

from __future__ import annotations

import os
import secrets
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nbllm.errors import HomeUnusable
from nbllm.storage.home import Home, own_directory
from nbllm.storage.vector_blocks import Block, Rows
from nbllm.storage.vector_codes import BITS, WORDS, Codes, planes_sum
from nbllm.storage.vector_rows import State

_MAGIC = b"nbllmvb1"
_HEAD = struct.Struct("<8s16sQQQIIII")
"""Magic, token of the file of rows, partition, after_id, last_id, rows, dimensions, bits, checksum of the planes."""
_BODY_AT = 80
"""After the head: numbers (8 bytes a row), words of sign bits (8 each), scales (4), checksums (8), coordinates (1 each)."""
_SUFFIX = ".block"
_HALF = ".new"
_HALF_OLD_S = 60.0
"""Nobody takes so long to write a block."""


class _File(NamedTuple):
    after_id: int
    last_id: int
    path: Path


class BlockFiles:
    """The files of blocks of one home. What cannot be read or written is as if it were not there."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def directory(self) -> Path:
        """Where they are; it may not exist. Raises HomeUnusable."""
        return self._home.prepare() / "vectors"

    def _of(self, number: int) -> list[_File]:
        found = []
        with suppress(OSError):
            for path in self.directory.glob(f"{number}-*{_SUFFIX}"):
                with suppress(ValueError):
                    _, after_id, last_id = map(int, path.name.removesuffix(_SUFFIX).split("-"))
                    found.append(_File(after_id, last_id, path))
        return sorted(found, key=lambda file: (file.after_id, -file.last_id))

    def load(self, at: State) -> list[Block]:
        """Return the blocks of a partition that are there, in the order of their rows. Rows between them are in no file."""
        self._sweep()
        blocks: list[Block] = []
        for file in self._of(at.number):
            done_id = blocks[-1].last_id if blocks else 0
            if done_id <= file.after_id <= file.last_id <= at.last_id and (block := _read(file, at)) is not None:
                blocks.append(block)
            else:  # damaged, or of no use to anybody who comes later
                _delete(file.path)
        return blocks

    def _sweep(self) -> None:
        """Delete what processes that were killed had left half written."""
        with suppress(OSError):
            for path in self.directory.glob(f"*{_HALF}"):
                if path.stat().st_mtime < time.time() - _HALF_OLD_S:
                    _delete(path)

    def save(self, at: State, block: Block) -> None:
        """Write a block to which nothing will be added."""
        with suppress(OSError, HomeUnusable):
            directory = self.directory
            own_directory(directory)
            _write(directory / f"{at.number}-{block.after_id}-{block.last_id}{_SUFFIX}", at, block)
            block.saved = True

    def keep_only(self, at: State, blocks: Iterable[Block]) -> None:
        """Delete a partition's other files."""
        wanted = {(block.after_id, block.last_id) for block in blocks}
        for file in self._of(at.number):
            if (file.after_id, file.last_id) not in wanted:
                _delete(file.path)

    def forget_rows(self, rows: Mapping[int, Iterable[int]]) -> None:
        """Overwrite rows in the files that hold them: for each number of a partition, numbers of rows."""
        for number, ids in rows.items():
            wanted = np.sort(np.fromiter(ids, np.int64))
            for file in self._of(number):
                begin, end = np.searchsorted(wanted, (file.after_id, file.last_id), "right")
                if begin < end:
                    try:
                        _overwrite(file.path, wanted[begin:end])
                    except OSError:
                        _delete(file.path)

    def clear(self, keep: Iterable[int] = ()) -> None:
        """Delete all files, but those of some partitions; what a kill left half written, too."""
        kept = tuple(f"{number}-" for number in keep)
        with suppress(OSError):
            for path in self.directory.glob("*"):
                if not path.name.startswith(kept) or not path.name.endswith(_SUFFIX):
                    _delete(path)

    def size_bytes(self) -> int:
        """Return how much all of them take."""
        total = 0
        with suppress(OSError):
            for path in self.directory.glob(f"*{_SUFFIX}"):
                with suppress(OSError):
                    total += path.stat().st_size
        return total


def _edges(rows: int, dimensions: int) -> list[int]:
    """Return where each part of the body begins, and where the last one ends."""
    edges: list[int] = np.cumsum([_BODY_AT, 8 * rows, 8 * WORDS * rows, 4 * rows, 8 * rows, dimensions * rows]).tolist()
    return edges


@cache
def _weights(words: int) -> NDArray[np.uint64]:
    return np.random.Generator(np.random.PCG64(words)).integers(1 << 63, size=words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _sums(ids: Rows, codes: Codes) -> NDArray[np.uint64]:
    """Return a checksum of each row: its 64-bit words, weighted by odd numbers. It is against decay, not against an enemy."""
    words, coordinates, scales = codes
    rest = np.zeros((len(ids), -coordinates.shape[1] % 8), np.int8)
    wide = (np.concatenate([coordinates, rest], axis=1) if rest.size else np.ascontiguousarray(coordinates)).view(np.uint64)
    weights = _weights(2 + WORDS + wide.shape[1])
    total: NDArray[np.uint64] = ids.view(np.uint64) * weights[0] + scales.view(np.uint32) * weights[1]
    for number in range(WORDS):
        total += words[number] * weights[2 + number]
    total += np.einsum("ij,j->i", wide, weights[2 + WORDS :])
    return total


def _write(path: Path, at: State, block: Block) -> None:
    n = block.rows
    ids, (words, coordinates, scales) = block.ids[:n], block.codes
    codes = (np.ascontiguousarray(words[:, :n]), coordinates[:n], scales[:n])
    dimensions = coordinates.shape[1]
    head = _HEAD.pack(
        _MAGIC, at.token.encode(), at.number, block.after_id, block.last_id, n, dimensions, BITS, planes_sum(dimensions)
    )
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_HALF}")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(head.ljust(_BODY_AT, b"\0"))
            for part in (ids, codes[0], codes[2], _sums(ids, codes), codes[1]):
                file.write(part.data)
        scratch.replace(path)
    except BaseException:
        _delete(scratch)
        raise


def _read(file: _File, at: State) -> Block | None:
    """Return the block of a file, None when it is not what its name says."""
    try:
        data = np.fromfile(file.path, np.uint8)
    except OSError:
        return None
    if len(data) < _BODY_AT:
        return None
    *names, n, dimensions, bits, of_planes = _HEAD.unpack(data[: _HEAD.size].tobytes())
    right = [_MAGIC, at.token.encode(), at.number, file.after_id, file.last_id]
    if (names, dimensions, bits, of_planes) != (right, at.dimensions, BITS, planes_sum(at.dimensions)):
        return None
    edges = _edges(n, dimensions)
    if edges[-1] != len(data):
        return None
    parts = [data[begin:end] for begin, end in pairwise(edges)]
    ids, words, scales = parts[0].view(np.int64), parts[1].view(np.uint64).reshape(WORDS, n), parts[2].view(np.float32)
    coordinates = parts[4].view(np.int8).reshape(n, dimensions)
    there = ids != 0
    if not np.array_equal(_sums(ids, (words, coordinates, scales))[there], parts[3].view(np.uint64)[there]):
        return None
    if not there.all():
        ids, words, coordinates, scales = ids[there], np.ascontiguousarray(words[:, there]), coordinates[there], scales[there]
    block = Block.of(ids, (words, coordinates, scales), file.after_id, file.last_id)
    block.saved = True
    return block


def _overwrite(path: Path, wanted: Sequence[int] | Rows) -> None:
    """Write zeros over rows, their numbers first: a kill half-way leaves none that counts."""
    with path.open("r+b", buffering=0) as file:
        head = file.read(_BODY_AT)
        *_, rows, dimensions, _, _ = _HEAD.unpack(head[: _HEAD.size])
        edges = _edges(rows, dimensions)
        places = np.flatnonzero(np.isin(np.frombuffer(file.read(8 * rows), np.int64), wanted)).tolist()
        spans = [(edges[0], 8)]
        spans += [(edges[1] + 8 * rows * word, 8) for word in range(WORDS)]
        spans += [(edges[2], 4), (edges[3], 8), (edges[4], dimensions)]
        for begin, width in spans:
            for place in places:
                file.seek(begin + width * place)
                file.write(bytes(width))


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
