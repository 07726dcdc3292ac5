"""Ledger rows to and from SQL parameters."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any

from nbllm.core.messages import Attempt, AttemptStatus, CallRow, Usage
from nbllm.core.why import Why, guards_from_text, guards_to_text
from nbllm.redaction import redact
from nbllm.storage.ledger_schema import CLOSE_CALL, CLOSE_CALL_WHY, INSERT_CALL, INSERT_CALL_IN_NOTEBOOK, INSERT_CALL_WHY
from nbllm.storage.money import to_pico_or_none, to_usd_or_none
from nbllm.storage.packing import STATUS_TEXTS, Names, pack_attempt, pack_call, tokens
from nbllm.storage.texts import storable


@lru_cache(maxsize=4096)
def clean(name: str | None) -> str | None:
    """Return a name that users or providers choose, such as a feature, storable and without what looks like a secret."""
    return None if name is None else storable(redact(name))


def insert_call(row_id: int, process: str, row: CallRow, names: Names) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that inserts a call, and its parameters."""
    saved = to_pico_or_none(row.saved_usd)
    counts = tokens(row.input_tokens), tokens(row.output_tokens)
    values = (
        row_id,
        row.call_id,
        clean(row.session),
        process,
        row.started_at,
        row.kind,
        STATUS_TEXTS[row.status],
        clean(row.model),
        clean(row.rung),
        row.source,
        row.coalesced,
        clean(row.feature),
        clean(row.user),
        row.cache,
        row.key_hash,
        clean(row.finish_reason),
        row.ttft_s,
        row.latency_s,
        *counts,
        saved,
        row.saved_s,
        row.repairs,
        clean(row.why.reason),
        row.error,
        pack_call(row_id, row, names, saved, counts),
    )
    if not _is_plain(row):
        return INSERT_CALL_WHY, (*values, clean(row.cell_id), clean(row.notebook), *_why(row))
    if row.cell_id is None and row.notebook is None:
        return INSERT_CALL, values
    return INSERT_CALL_IN_NOTEBOOK, (*values, clean(row.cell_id), clean(row.notebook))


def close_call(row_id: int, row: CallRow, names: Names) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that closes a call, and its parameters."""
    saved = to_pico_or_none(row.saved_usd)
    counts = tokens(row.input_tokens), tokens(row.output_tokens)
    values = (
        STATUS_TEXTS[row.status],
        clean(row.model),
        clean(row.rung),
        row.source,
        row.coalesced,
        row.key_hash,
        clean(row.finish_reason),
        row.ttft_s,
        row.latency_s,
        *counts,
        saved,
        row.saved_s,
        row.repairs,
        clean(row.why.reason),
        row.error,
        pack_call(row_id, row, names, saved, counts),
    )
    return (CLOSE_CALL, (*values, row_id)) if _is_plain(row) else (CLOSE_CALL_WHY, (*values, *_why(row), row_id))


def _is_plain(row: CallRow) -> bool:
    """Whether a call has nothing but a reason: most have, and what a hit costs is mostly its key and this row."""
    why = row.why
    return why.route is None and why.similarity is None and row.accepted and why.threshold is None and why.guards is None


def _why(row: CallRow) -> tuple[Any, ...]:
    why = row.why
    guards = guards_to_text(why.guards)
    return clean(why.route), row.accepted, why.similarity, guards, why.threshold, why.error_upper, clean(why.plan_id)


def insert_attempt(row_id: int, call: int, process: str, attempt: Attempt) -> tuple[Any, ...]:
    """Return the parameters of INSERT_ATTEMPT; call: the id of its call's row, 0 for none."""
    return (
        row_id,
        attempt.attempt_id,
        call,
        attempt.call_id,
        process,
        attempt.number,
        clean(attempt.rung),
        clean(attempt.endpoint),
        clean(attempt.model),
        attempt.purpose,
        attempt.started_at,
        STATUS_TEXTS[attempt.status],
        *_outcome(call, attempt),
    )


def close_attempt(row_id: int, call: int, attempt: Attempt) -> tuple[Any, ...]:
    """Return the parameters of CLOSE_ATTEMPT."""
    return (STATUS_TEXTS[attempt.status], *_outcome(call, attempt), row_id)


def _outcome(call: int, attempt: Attempt) -> tuple[Any, ...]:
    usage = attempt.usage
    counts = tokens(usage.input_tokens), tokens(usage.output_tokens)
    worst, cost = to_pico_or_none(attempt.worst_case_usd), to_pico_or_none(attempt.cost_usd)
    return (
        attempt.sent,
        attempt.streamed,
        attempt.waited_s,
        attempt.ttft_s,
        attempt.latency_s,
        *counts,
        tokens(usage.reasoning_tokens),
        tokens(usage.cached_input_tokens),
        usage.estimated,
        worst,
        cost,
        attempt.cost_basis,
        clean(attempt.finish_reason),
        attempt.error,
        attempt.http_status,
        pack_attempt(call, attempt, cost, worst, counts),
    )


def call_row(row: sqlite3.Row) -> CallRow:
    """Return the call of a row of `calls`."""
    return CallRow(
        call_id=row["call_id"],
        session=row["session"],
        started_at=row["started_at"],
        kind=row["kind"],
        status=AttemptStatus(row["status"]),
        model=row["model"],
        rung=row["rung"],
        source=row["source"],
        coalesced=bool(row["coalesced"]),
        feature=row["feature"],
        user=row["user"],
        cache=row["cache"],
        key_hash=row["key_hash"],
        finish_reason=row["finish_reason"],
        ttft_s=row["ttft_s"],
        latency_s=row["latency_s"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        saved_usd=to_usd_or_none(row["saved_picodollars"]),
        saved_s=row["saved_s"],
        repairs=row["repairs"],
        why=Why(
            route=row["route"],
            reason=row["reason"],
            similarity=row["similarity"],
            guards=guards_from_text(row["guards"]),
            threshold=row["threshold"],
            error_upper=row["error_upper"],
            plan_id=row["plan_id"],
        ),
        accepted=bool(row["accepted"]),
        error=row["error"],
        cell_id=row["cell_id"],
        notebook=row["notebook"],
    )


def attempt_row(row: sqlite3.Row) -> Attempt:
    """Return the attempt of a row of `attempts`."""
    return Attempt(
        attempt_id=row["attempt_id"],
        call_id=row["call_id"],
        number=row["number"],
        rung=row["rung"],
        endpoint=row["endpoint"],
        model=row["model"],
        purpose=row["purpose"],
        started_at=row["started_at"],
        status=AttemptStatus(row["status"]),
        sent=None if row["sent"] is None else bool(row["sent"]),
        streamed=bool(row["streamed"]),
        waited_s=row["waited_s"],
        ttft_s=row["ttft_s"],
        latency_s=row["latency_s"],
        usage=Usage(
            row["input_tokens"],
            row["output_tokens"],
            row["reasoning_tokens"],
            row["cached_input_tokens"],
            bool(row["tokens_estimated"]),
        ),
        worst_case_usd=to_usd_or_none(row["worst_case_picodollars"]),
        cost_usd=to_usd_or_none(row["cost_picodollars"]),
        cost_basis=row["cost_basis"],
        finish_reason=row["finish_reason"],
        error=row["error"],
        http_status=row["http_status"],
    )
