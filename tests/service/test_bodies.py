"""What a body must be before it is parsed: depth, NaN, encodings; held against Python's own parser."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.service.bodies import check_json
from nbllm.service.problems import ServiceProblem

TEXTS = st.text(st.sampled_from('"\\[]{}:,NaIfinty üx\n'), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=25,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def is_taken(body: bytes, most: int) -> bool:
    try:
        check_json(body, most)
    except ServiceProblem:
        return False
    return True


@given(JSON, st.integers(1, 6), st.booleans())
def test_json_is_taken_exactly_when_it_is_not_too_deep(value: Any, most: int, ascii_only: bool) -> None:
    """For any JSON, with brackets, quotes and words in its texts: the depth that is found is the true one."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert is_taken(body, most) == (depth(value) <= most)


@given(st.binary(max_size=60) | st.text(st.sampled_from('"\\[]{}:,1NaN'), max_size=60).map(str.encode), st.integers(1, 5))
def test_what_is_taken_of_noise_is_safe_to_parse(body: bytes, most: int) -> None:
    """Whatever comes: what passes and is JSON is not deeper than the limit and holds no NaN."""
    if not is_taken(body, most):
        return
    try:
        value = json.loads(body, parse_constant=pytest.fail)
    except (ValueError, UnicodeDecodeError):
        return
    assert depth(value) <= most


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b"[]" * 500_000,
        b'"' * 1_000_000,
        b'"\\' * 500_000,
        b'\\"' * 500_000,
        b"{" * 63 + b"[]," * 300_000,
        (b"[" * 64 + b"]" * 64) * 7_800,
        b"NaN" * 330_000,
        b'"' + b"\\" * 999_998,
    ],
    ids=["open", "flat", "quotes", "escapes", "escaped quotes", "wide", "at the limit", "NaN", "backslashes"],
)
def test_the_worst_megabyte_takes_little_time(body: bytes) -> None:
    """No megabyte that a client can think of keeps the loop busy for long: everything is linear in its length."""
    began_s = time.process_time()
    is_taken(body, 64)
    assert time.process_time() - began_s < 0.5
