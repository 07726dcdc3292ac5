"""Processes of the tests of the vector index. `python -m tests.storage.vector_workers WHAT HOME ...`; what they did is printed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from itertools import count

import numpy as np

from nbllm.storage import vector_blocks, vector_loaded, vector_partition
from nbllm.storage.home import Home
from nbllm.storage.vectors import SqliteVectors
from tests.storage.vector_making import DIMENSIONS, row


def vector_of(name: str) -> np.ndarray:
    """Make the vector that belongs to a key, the same in every process."""
    return np.random.default_rng(int.from_bytes(name.encode(), "little")).standard_normal(DIMENSIONS)


def small_blocks() -> None:
    """Make files of a few rows."""
    vector_blocks.BLOCK_ROWS = vector_partition.BLOCK_ROWS = 64
    vector_blocks.EXACT_ROWS = vector_partition.EXACT_ROWS = 16
    vector_loaded.CARE_EVERY_S = 0.0


async def write_for_ever(home: str, name: str, said: int) -> None:
    """Add, search and drop until killed; write each line once it is acknowledged."""
    index = SqliteVectors(Home(home))
    for number in count():
        key = f"{name}-{number}"
        await index.add(row(key, vector_of(key)))
        os.write(said, f"added {key}\n".encode())
        found = await index.nearest("p", vector_of(key), 1)
        if [one.key for one in found] != [key]:
            os.write(said, f"lost {key} {found}\n".encode())
        if number % 3 == 0:
            os.write(said, f"dropping {key}\n".encode())
            await index.drop(key)
            os.write(said, f"dropped {key}\n".encode())
            if await index.nearest("p", vector_of(key), 1, at_least=0.99):
                os.write(said, f"risen {key}\n".encode())


def kill_cycles(home: str, cycles: int) -> list[str]:
    """Fork two writers at a time and kill -9 them in the middle of it; return all that they said."""
    small_blocks()
    lines: list[str] = []
    for cycle in range(cycles):
        children = []
        for number in range(2):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                asyncio.run(write_for_ever(home, f"{cycle}.{number}", writing))
            os.close(writing)
            children.append((pid, reading))
        for pid, reading in children:
            with os.fdopen(reading) as said:
                lines += [said.readline().rstrip() for _ in range(15 + 5 * cycle)]  # then it is well under way
                time.sleep(random.Random(cycle).random() / 50)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                lines += said.read().splitlines()
    return lines


async def echo(home: str) -> None:
    """Do what the lines of standard input say, on one index that stays open; say how it went."""
    index = SqliteVectors(Home(home))
    for line in sys.stdin:
        what, *rest = line.split()
        if what == "add":
            for key in rest:
                await index.add(row(key, vector_of(key)))
        elif what == "drop":
            await index.drop(*rest)
        elif what == "clear":
            await index.clear()
        found = [[one.key for one in await index.nearest("p", vector_of(key), 1, at_least=0.99)] for key in rest]
        print(json.dumps(found), flush=True)
    index.close()


if __name__ == "__main__":
    if sys.argv[1] == "kills":
        print("\n".join(kill_cycles(sys.argv[2], int(sys.argv[3]))))
    else:
        asyncio.run(echo(sys.argv[2]))
