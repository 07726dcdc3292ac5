"""The final meter line: the reply's own numbers, and what the session has cost so far."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from nbllm.core.meter_line import meter_line
from nbllm.core.reply import Reply
from nbllm.errors import NbllmError


def final_line(reply: Reply, client: Any) -> str:
    """Return the line that stays under an answer."""
    spent_usd, limit_usd = session_money(client)
    return meter_line(reply, session_usd=spent_usd, session_limit_usd=limit_usd)


def session_money(client: Any) -> tuple[Decimal | None, Decimal | None]:
    """Return what the session has spent and may spend, in USD; None where unknown or not limited. Never fails."""
    limit: Decimal | None = client.settings.budgets.session_usd
    try:
        return client.spent_session_usd(), limit
    except (NbllmError, OSError, RuntimeError):
        return None, limit  # a line about money must not break an answer that is there
