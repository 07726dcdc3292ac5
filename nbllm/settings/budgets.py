"""BudgetSettings: the money limits that settings may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """Hard limits in USD; None: not limited.

    features, users: limits by name. soft: share of a limit at which one warning is shown.
    """

    request_usd: Decimal | None = None
    session_usd: Decimal | None = None
    day_usd: Decimal | None = None
    features: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    users: Mapping[str, Decimal] = field(default_factory=dict, hash=False)
    soft: float = 0.8
