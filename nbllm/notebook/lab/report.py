"""A session as Markdown, to be pasted where people read it; and why a call was answered as it was, without any text of it."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from nbllm.core.messages import CallRow
from nbllm.core.ports import Filter
from nbllm.core.usage_table import UsageTable, simulated_note, without_math
from nbllm.core.why import guards_to_text
from nbllm.notebook import wording
from nbllm.notebook.call_tables import cost_of, result_of
from nbllm.notebook.lab.values import name

if TYPE_CHECKING:
    from nbllm.client import Client

_GROUPS = (("model", "By model"), ("source", "By source"), ("feature", "By feature"))
_MOST_ROWS = 50
_NEWEST = 1000


def report(client: Client, version: str) -> str:
    """Return what the client's session has used, as Markdown. Names are escaped: nothing in them acts as markup."""
    where = Filter(session=client.session)
    found = client.ledger.usages(("total", *(by for by, _ in _GROUPS)), where)
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    blocks = [f"## LLM session, {at}", _total(found[0], version)]
    for (by, title), rows in zip(_GROUPS, found[1:], strict=True):
        if rows and not (len(rows) == 1 and by == "feature" and rows[0].group == "(none)"):
            more = f"\n\n{len(rows) - _MOST_ROWS} more are left out." if len(rows) > _MOST_ROWS else ""
            blocks.append(f"### {title}\n\n{UsageTable(by, rows[:_MOST_ROWS])._repr_markdown_()}{more}")
    if note := simulated_note(found[1]):
        blocks.append(without_math(escape(note)))
    blocks.append("### Budgets\n\n" + "\n".join(_budgets(client)))
    return "\n\n".join(blocks) + "\n"


def _total(rows: object, version: str) -> str:
    row = next(iter(rows), None)  # type: ignore[call-overload]  # a sequence with one row, or none
    if row is None:
        return f"Nothing was asked yet (nbllm {version})."
    unknown = f" and {wording.plural(row.unknown_cost_calls, 'call')} of unknown cost" if row.unknown_cost_calls else ""
    calls = f"{wording.plural(row.calls, 'call')}, {row.failed:,} failed, {row.hits:,} from the cache"
    money = f"Cost: {wording.usd(row.cost_usd)}{unknown}; saved {wording.usd(row.saved_usd)}"
    tokens = f"Tokens: {row.input_tokens:,} in, {row.output_tokens:,} out"
    return without_math(escape(f"{calls}. {money}. {tokens} (nbllm {version})."))


def _budgets(client: Client) -> list[str]:
    lines = ["| budget | spent | reserved | limit |", "|:--|--:|--:|--:|"]
    for line in client.budget_lines()[:_MOST_ROWS]:
        scope = "".join(f"&#{ord(char)};" if char in "|`*_[]()<>&!~#:@" else char for char in name(line.scope))
        cells = (
            wording.usd(line.spent_usd),
            wording.usd(line.reserved_usd),
            "none" if line.hard_usd is None else wording.usd(line.hard_usd),
        )
        lines.append(without_math(f"| {scope} | " + " | ".join(map(escape, cells)) + " |"))
    return lines


def found_call(client: Client, call_id: str) -> CallRow | None:
    """Return a call's row: of the session's newest, else of the whole ledger, which takes a moment."""
    newest = client.ledger.calls(Filter(session=client.session), limit=_NEWEST)
    row: CallRow | None = next((row for row in newest if row.call_id == call_id), None) or client.ledger.call(call_id)
    return row


def why(client: Client, row: CallRow) -> str:
    """Return why a call was answered as it was, as lines of plain text. %llm_why says more: the questions, where they are kept."""
    reason = row.why
    attempts = client.ledger.attempts(row.call_id)
    lines = [
        f"asked: {name(row.model or 'the default')}",
        f"answered by: {name(row.rung or 'nobody')}",
        f"result: {name(result_of(row))}" + (f", from {row.source}" if row.source else ""),
        f"cost: {wording.usd(cost_of(attempts))}" + (f", saved {wording.usd(row.saved_usd)}" if row.saved_usd else ""),
        f"attempts: {len(attempts)}"
        + "".join(f"\n  {a.number}. {name(a.rung)}: {name(a.error or a.status.value)}" for a in attempts[:20]),
    ]
    if reason.route:
        lines.append(f"route: {name(reason.route)}")
    if reason.reason:
        lines.append(f"reason: {name(reason.reason, 1000)}")
    if reason.similarity is not None:
        lines.append(f"similarity: {reason.similarity:.4f}")
    if reason.threshold is not None:
        lines.append(f"threshold in force: {reason.threshold:.4f}")
    if reason.error_upper is not None:
        lines.append(
            f"bound in force: at most {reason.error_upper:.1%} of such answers are wrong (plan {name(reason.plan_id or '')})"
        )
    if reason.guards:
        lines.append(f"guards (! said no): {name(guards_to_text(reason.guards) or '')}")
    if not row.accepted:
        lines.append("accepted: no, the best answer that there was")
    return "\n".join(lines)
