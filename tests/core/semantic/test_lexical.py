"""The built-in embedder."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.semantic.lexical import DIMENSIONS, embed


@given(st.text(max_size=2_000))
def test_every_text_has_a_direction(text: str) -> None:
    """Any text, an empty one too, has a unit vector of the same size, and the same one each time."""
    vector = embed(text)
    assert vector.shape == (DIMENSIONS,)
    assert vector.dtype == np.float32
    assert abs(float(vector @ vector) - 1) < 1e-5
    assert (embed(text) == vector).all()


def test_wording_is_what_it_compares() -> None:
    """Near wording is near; case and width of letters do not matter; other words are far, whatever they mean."""
    asked = embed("How can I reset my password?")
    assert asked @ embed("how can i RESET my password") > 0.99
    assert asked @ embed("How do I reset the password?") > 0.8
    assert asked @ embed("How can I reset my passwords?") > 0.7
    assert asked @ embed("I forgot the word that lets me in") < 0.4


def test_a_text_of_a_megabyte_is_cut() -> None:
    """Length costs no more than what is compared."""
    assert abs(float(np.linalg.norm(embed("word " * 200_000))) - 1) < 1e-5
