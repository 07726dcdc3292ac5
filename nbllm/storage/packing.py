"""The numbers of a ledger row once more, as one short blob, so that a million rows become a numpy array in a third of a second.

SQLite concatenates the blobs in one statement and numpy reads the result in place; fetching the same columns as Python objects
takes over a second and a half. Little-endian, without padding. CALL_FIELDS and ATTEMPT_FIELDS are (name, numpy type, struct code).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from nbllm.core.messages import Attempt, AttemptStatus, CallRow

UNKNOWN_PICO = -(2**63)
NAN = float("nan")
MOST_TOKENS = 2**31 - 1

STATUSES = tuple(status.value for status in AttemptStatus)
STATUS_TEXTS = {status: status.value for status in AttemptStatus}
"""What stands in a row: an Enum's `value` is a function in Python, and each call writes four rows."""
SOURCES = ("", "model", "cache", "semantic", "stale", "static")
HITS = tuple(SOURCES.index(name) for name in ("cache", "semantic"))
RESCUES = tuple(SOURCES.index(name) for name in ("stale", "static"))
BASES = ("unknown", "estimated", "exact")

CALL_FIELDS = (
    ("id", "<i8", "q"),
    ("started_at", "<f8", "d"),
    ("latency_s", "<f8", "d"),
    ("ttft_s", "<f8", "d"),
    ("saved_s", "<f8", "d"),
    ("saved_pico", "<i8", "q"),
    ("input_tokens", "<i4", "i"),
    ("output_tokens", "<i4", "i"),
    ("model", "<i4", "i"),
    ("feature", "<i4", "i"),
    ("user", "<i4", "i"),
    ("session", "<i4", "i"),
    ("status", "u1", "B"),
    ("source", "u1", "B"),
)
ATTEMPT_FIELDS = (
    ("call", "<i8", "q"),
    ("cost_pico", "<i8", "q"),
    ("worst_pico", "<i8", "q"),
    ("input_tokens", "<i4", "i"),
    ("output_tokens", "<i4", "i"),
    ("basis", "u1", "B"),
    ("sent", "u1", "B"),
)

_CALL = struct.Struct("<" + "".join(code for _, _, code in CALL_FIELDS))
_ATTEMPT = struct.Struct("<" + "".join(code for _, _, code in ATTEMPT_FIELDS))
_STATUS_CODES = {status: index for index, status in enumerate(AttemptStatus)}
_SOURCE_CODES = {(name or None): index for index, name in enumerate(SOURCES)}
_BASIS_CODES = {name: index for index, name in enumerate(BASES)}
NOT_SENT, SENT, SENT_UNKNOWN = 0, 1, 2


Counts = tuple[int | None, int | None]
"""Tokens of input and output."""


class Names(NamedTuple):
    """Numbers of a call's names: of the model that answered, else the one that was asked for; 0 for none."""

    model: int
    feature: int
    user: int
    session: int


def pack_call(row_id: int, row: CallRow, names: Names, saved_pico: int | None, counts: Counts) -> bytes:
    """Return the numbers of a call. counts: its tokens, as `tokens` makes them fit."""
    latency_s, ttft_s, saved_s = row.latency_s, row.ttft_s, row.saved_s
    tokens_in, tokens_out = counts
    return _CALL.pack(
        row_id,
        row.started_at,
        NAN if latency_s is None else latency_s,
        NAN if ttft_s is None else ttft_s,
        NAN if saved_s is None else saved_s,
        UNKNOWN_PICO if saved_pico is None else saved_pico,
        -1 if tokens_in is None else tokens_in,
        -1 if tokens_out is None else tokens_out,
        *names,
        _STATUS_CODES[row.status],
        _SOURCE_CODES[row.source],
    )


def pack_attempt(call: int, attempt: Attempt, cost_pico: int | None, worst_pico: int | None, counts: Counts) -> bytes:
    """Return the numbers of an attempt; call: the id of its call's row, 0 for none. counts: see pack_call."""
    tokens_in, tokens_out = counts
    return _ATTEMPT.pack(
        call,
        UNKNOWN_PICO if cost_pico is None else cost_pico,
        UNKNOWN_PICO if worst_pico is None else worst_pico,
        -1 if tokens_in is None else tokens_in,
        -1 if tokens_out is None else tokens_out,
        _BASIS_CODES[attempt.cost_basis],
        SENT_UNKNOWN if attempt.sent is None else int(attempt.sent),
    )


def died_call(packed: bytes) -> bytes:
    """Return the numbers of a call whose process died."""
    values = list(_CALL.unpack(packed))
    values[12] = _STATUS_CODES[AttemptStatus.UNKNOWN]
    return _CALL.pack(*values)


def died_attempt(packed: bytes) -> bytes:
    """Return the numbers of an attempt whose process died: its worst case is what it cost, as far as anybody can tell."""
    call, _, worst, input_tokens, output_tokens, _, sent = _ATTEMPT.unpack(packed)
    basis = _BASIS_CODES["unknown" if worst == UNKNOWN_PICO else "estimated"]
    return _ATTEMPT.pack(call, worst, worst, input_tokens, output_tokens, basis, sent)


def tokens(count: int | None) -> int | None:
    """Return a count as it fits into a row: what a provider sends is not ours to trust."""
    if count is None or (type(count) is int and 0 <= count <= MOST_TOKENS):
        return count
    return min(max(int(count), 0), MOST_TOKENS)
