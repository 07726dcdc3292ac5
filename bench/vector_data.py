"""Clustered vectors with planted neighbours, homes filled with them, and what comparing everything finds."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from nbllm.core.ports import VectorRow
from nbllm.storage.home import Home
from nbllm.storage.vectors import SqliteVectors

DIMENSIONS = 384
CLUSTER_ROWS = 1000
LOT = 50_000


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    """Return unit vectors, float16, in clusters of about a thousand; inside one, cosines are 0.5 to 0.9 on average."""
    rng = np.random.default_rng(seed)
    clusters = max(1, rows // CLUSTER_ROWS)
    centres, inside = _unit(rng, clusters), rng.uniform(0.5, 0.9, clusters).astype(np.float32)
    made = np.empty((rows, DIMENSIONS), np.float16)
    for begin in range(0, rows, LOT):
        which = rng.integers(clusters, size=min(LOT, rows - begin))
        share = inside[which][:, None]
        made[begin : begin + LOT] = np.sqrt(share) * centres[which] + np.sqrt(1 - share) * _unit(rng, len(which))
    return made


def _unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planted(vectors: np.ndarray, of: np.ndarray, seed: int = 1) -> np.ndarray:
    """Return a question near each of the rows `of`, at a cosine of 0.8 to 0.99."""
    rng = np.random.default_rng(seed)
    rows = vectors[of].astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rng.uniform(0.8, 0.99, len(of)).astype(np.float32)[:, None]
    sides = rng.standard_normal(rows.shape, dtype=np.float32)
    sides -= (sides * rows).sum(axis=1, keepdims=True) * rows
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    return cosines * rows + np.sqrt(1 - cosines**2) * sides


def truth(vectors: np.ndarray, questions: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return the largest cosine of each question with any row that is alive."""
    best = np.full(len(questions), -1.0, np.float32)
    for begin in range(0, len(vectors), LOT):
        lot = vectors[begin : begin + LOT][alive[begin : begin + LOT]].astype(np.float32)
        if len(lot):
            lot /= np.linalg.norm(lot, axis=1, keepdims=True)
            best = np.maximum(best, (questions @ lot.T).max(axis=1))
    return best


def fill(path: Path, vectors: np.ndarray, partitions: int = 1) -> None:
    """Write rows under the keys 0, 1 ... as the index itself would, but many to a commit; row n is in partition n % partitions."""
    home = Home(path)
    index = SqliteVectors(home)
    asyncio.run(index.add(VectorRow(key="first", partition="first", question="", vector=vectors[0], created_at=time.time())))
    index.close()
    home.close()
    with closing(sqlite3.connect(path / "vectors.db", isolation_level=None)) as con:
        con.execute("PRAGMA synchronous=OFF")
        names = [(number + 2, f"p{number}", DIMENSIONS) for number in range(partitions)]
        con.executemany("INSERT INTO partitions (number, name, dimensions) VALUES (?, ?, ?)", names)
        sql = "INSERT INTO rows (partition, created_at, key, vector, embedder, question) VALUES (?, ?, ?, ?, '', ?)"
        for begin in range(0, len(vectors), LOT):
            numbers = range(begin, min(begin + LOT, len(vectors)))
            con.execute("BEGIN")
            con.executemany(
                sql,
                ((n % partitions + 2, time.time(), key_of(n), vectors[n].tobytes(), f"Question {n}, and more?") for n in numbers),
            )
            con.execute("COMMIT")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def key_of(number: int) -> str:
    """Return a key as long as those of the response cache."""
    return f"{number * 2654435761 % 2**32:08x}{number:056x}"
