"""The vector index finds the nearest of neighbours at 0.8 and above in at least 99.9%, whatever the questions look like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nbllm.storage.vector_blocks import BLOCK_ROWS, Block, nearest
from tests.promises.pairs import FOLDER
from tests.storage.vector_making import clustered, near, unit

ROWS, QUESTIONS, DIMENSIONS = 100_000, 3_000, 384
REAL = FOLDER / "question_pairs_minilm.npz"


def scattered(rng: np.random.Generator) -> np.ndarray:
    """Make vectors in all directions alike."""
    return unit(rng, ROWS, DIMENSIONS)


def one_subject(rng: np.random.Generator) -> np.ndarray:
    """Make vectors of one subject: all have a direction in common, cosines average 0.4."""
    return clustered(rng, ROWS, 1, 0.4)


def loose(rng: np.random.Generator) -> np.ndarray:
    """Make clusters of a thousand, 0.5 inside."""
    return clustered(rng, ROWS, 100, 0.5)


def tight(rng: np.random.Generator) -> np.ndarray:
    """Make clusters of a thousand, 0.85 inside: all of one are near to its questions."""
    return clustered(rng, ROWS, 100, 0.85)


def crowds(rng: np.random.Generator) -> np.ndarray:
    """Make ten crowds of ten thousand, 0.75 inside."""
    return clustered(rng, ROWS, 10, 0.75)


def flat(rng: np.random.Generator) -> np.ndarray:
    """Make vectors that fill 24 of the 384 dimensions only, as those of a small embedder do."""
    vectors = unit(rng, ROWS, 24) @ unit(rng, DIMENSIONS, 24).T
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def long_tail(rng: np.random.Generator) -> np.ndarray:
    """Make clusters of which a few hold most: sizes fall as 1 / rank."""
    share = 1 / np.arange(1, 1001)
    which = rng.choice(1000, ROWS, p=share / share.sum())
    vectors = np.sqrt(0.6) * unit(rng, 1000, DIMENSIONS)[which] + np.sqrt(0.4) * unit(rng, ROWS, DIMENSIONS)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def indexed(vectors: np.ndarray) -> list[Block]:
    """Put vectors into blocks, numbered from 1."""
    blocks = []
    for begin in range(0, len(vectors), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(vectors))
        block = Block(vectors.shape[1], begin, capacity=end - begin)
        for at in range(begin, end, 1024):
            part = vectors[at : min(at + 1024, end)].astype(np.float32)
            block.add(np.arange(at, at + len(part)) + 1, part, at + len(part))
        blocks.append(block)
    return blocks


def found_and_wanted(blocks: list[Block], vectors: np.ndarray, alive: np.ndarray, questions: np.ndarray) -> tuple[int, int]:
    """Return for how many questions the nearest row is among the candidates, and how many have one at 0.8 or above.

    Rows as near as rounding to 8 bits can tell count as one: the index reads their true scores from the file.
    """
    right = wanted = 0
    rows = vectors.astype(np.float32)
    for begin in range(0, len(questions), 500):
        truth = questions[begin : begin + 500] @ rows.T
        truth[:, ~alive] = -1.0
        for question, scores in zip(questions[begin : begin + 500], truth, strict=True):
            if (best := scores.max()) >= 0.8:
                wanted += 1
                ids = nearest(blocks, question, 8, 0.8).ids
                right += bool(len(ids)) and bool(scores[ids - 1].max() >= best - 1e-6)
    return right, wanted


@pytest.mark.timeout(600)
@pytest.mark.parametrize("deleted", [0.0, 0.2])
@pytest.mark.parametrize("world", [scattered, one_subject, loose, tight, crowds, flat, long_tail])
def test_the_nearest_of_a_hundred_thousand_is_found(world: Callable[[np.random.Generator], np.ndarray], deleted: float) -> None:
    """Of 3,000 neighbours planted at 0.8 to 0.99, nothing and a fifth of the rows deleted: 99.9% at least, against exact search."""
    rng = np.random.default_rng(17)
    vectors = world(rng)
    gone = rng.random(ROWS) < deleted
    blocks = indexed(vectors)
    for block in blocks:
        block.kill((np.flatnonzero(gone) + 1).tolist())
    of = rng.choice(np.flatnonzero(~gone), QUESTIONS)
    questions = near(rng, vectors[of], rng.uniform(0.8, 0.99, QUESTIONS))
    right, wanted = found_and_wanted(blocks, vectors, ~gone, questions)
    assert wanted > 0.9 * QUESTIONS
    assert right >= 0.999 * wanted


@pytest.mark.skipif(not REAL.exists(), reason="the data for development are not here")
def test_the_nearest_of_real_questions_is_found() -> None:
    """Every question of 2,000 labelled pairs that has another one at 0.8 or above: 99.9% at least."""
    with np.load(REAL) as data:
        vectors = np.unique(np.concatenate([data["a"], data["b"]]).astype(np.float32), axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    blocks = indexed(vectors)
    right = wanted = 0
    for number, (vector, scores) in enumerate(zip(vectors, vectors @ vectors.T, strict=True)):
        scores[number] = -1.0
        if (best := scores.max()) >= 0.8:
            wanted += 1
            ids = nearest(blocks, vector, 9, 0.8).ids - 1
            ids = ids[ids != number]
            right += bool(len(ids)) and bool(scores[ids].max() >= best - 1e-6)
    assert wanted > 1000
    assert right >= 0.999 * wanted
