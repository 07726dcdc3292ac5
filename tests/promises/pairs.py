"""Real labelled question pairs, where they are at hand: NBLLM_SHARED_DATA, else ../shared/data beside the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.calibration.worlds import World, world

FOLDER = Path(os.environ.get("NBLLM_SHARED_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")


def question_pairs() -> World:
    """Return the pairs with the cosine of their embeddings as score; skips the test that asks where they are not at hand."""
    labels, vectors = FOLDER / "question_pairs.jsonl", FOLDER / "question_pairs_minilm.npz"
    if not (labels.is_file() and vectors.is_file()):
        pytest.skip(f"The question pairs are not in {FOLDER} (NBLLM_SHARED_DATA names another folder).")
    same = np.array([bool(json.loads(line)["same"]) for line in labels.read_text(encoding="utf-8").splitlines()])
    with np.load(vectors) as file:
        a, b = file["a"].astype(np.float64), file["b"].astype(np.float64)
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return world("question pairs", cosine, ~same)
