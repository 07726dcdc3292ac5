"""Embeddings of the simulated model: words and letter trigrams hashed into 256 dimensions, so that similar texts are similar."""

from __future__ import annotations

import math
import zlib

from nbllm.providers.sim_reading import content_words, stem

DIMENSIONS = 256
MAX_CHARS = 20_000


def embed(text: str, model: str) -> tuple[float, ...]:
    """Return a unit vector (feature hashing with signs: Weinberger and others, 2009). Each model has a space of its own."""
    vector = [0.0] * DIMENSIONS
    for word in content_words(text[:MAX_CHARS]) or [text[:MAX_CHARS].lower()]:
        _add(vector, f"{model}:{stem(word)}", 1.0)
        padded = f"^{word}$"
        for start in range(max(1, len(padded) - 2)):
            _add(vector, f"{model}#{padded[start : start + 3]}", 0.3)
    size = math.sqrt(sum(value * value for value in vector))
    if not size:
        _add(vector, f"{model}:", 1.0)
        size = 1.0
    return tuple(value / size for value in vector)


def _add(vector: list[float], feature: str, weight: float) -> None:
    code = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
    vector[code % DIMENSIONS] += weight if code & 0x8000_0000 else -weight
