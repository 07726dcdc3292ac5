"""Rows for tests."""

from __future__ import annotations

import uuid
from decimal import Decimal

from msgspec.structs import replace

from nbllm.core.messages import Attempt, AttemptStatus, CallRow, Usage
from nbllm.core.why import Why

NOW = 1_790_000_000.0


def call(**changes) -> CallRow:
    base = CallRow(
        call_id=uuid.uuid4().hex,
        session="s1",
        started_at=NOW,
        status=AttemptStatus.DONE,
        model="sim/large",
        rung="sim/large",
        source="model",
        feature="summaries",
        key_hash="k" * 64,
        finish_reason="stop",
        ttft_s=0.25,
        latency_s=1.5,
        input_tokens=10,
        output_tokens=5,
        why=Why(reason="only one"),
    )
    return replace(base, **changes)


def open_call(**changes) -> CallRow:
    return call(status=AttemptStatus.OPEN, rung=None, source=None, latency_s=None, ttft_s=None, **changes)


def attempt(row: CallRow, **changes) -> Attempt:
    base = Attempt(
        attempt_id=uuid.uuid4().hex,
        call_id=row.call_id,
        number=1,
        rung="sim/large",
        endpoint="sim",
        model="large",
        started_at=row.started_at,
        status=AttemptStatus.DONE,
        sent=True,
        streamed=True,
        waited_s=0.5,
        ttft_s=0.25,
        latency_s=1.5,
        usage=Usage(100, 20, 3, 50, estimated=True),
        worst_case_usd=Decimal("0.5"),
        cost_usd=Decimal("0.001234567890"),
        cost_basis="exact",
        finish_reason="stop",
    )
    return replace(base, **changes)


def open_attempt(row: CallRow, **changes) -> Attempt:
    values = {"status": AttemptStatus.OPEN, "sent": None, "cost_usd": None, "cost_basis": "unknown"} | changes
    return attempt(row, **values)
