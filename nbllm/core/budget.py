"""Which budgets an attempt pays into, what still fits, and when a soft limit is crossed. Money is Decimal USD, exact."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from nbllm.core.messages import DayScope
from nbllm.core.ports import Balance, Scope
from nbllm.core.pricing import Price, affordable_tokens
from nbllm.core.pricing import worst_case as worst_case_usd
from nbllm.settings import BudgetSettings

__all__ = [
    "MINIMUM_TOKENS",
    "crossed",
    "day_scope",
    "fit_max_tokens",
    "room_usd",
    "scope_lines",
    "scopes_of",
    "utc_day",
    "worst_case_usd",
]

MINIMUM_TOKENS = 256
"""An answer that a budget cuts shorter than this is of little use: the attempt is refused instead."""


def utc_day(epoch_s: float) -> str:
    """Return the day of a Unix time as "2026-11-21"; days of budgets are UTC."""
    return _day(int(epoch_s // 86_400))


@lru_cache(maxsize=4)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86_400, UTC).strftime("%Y-%m-%d")


def scopes_of(
    limits: BudgetSettings,
    *,
    session: str,
    call_id: str,
    day_utc: str,
    feature: str | None = None,
    user: str | None = None,
    budget_usd: Decimal | None = None,
    more: tuple[DayScope, ...] = (),
) -> tuple[Scope, ...]:
    """Return the scopes that an attempt pays into, the narrowest first: a refusal names the one that is closest to the call.

    The session and the day are always among them, limited or not: a limit that is set later counts what was spent before. The
    request is only where it is limited, by budget_usd (the call's own argument, which wins) or limits.request_usd. more: further
    budgets of a day, such as that of a service's key; each counts, limited or not.
    """
    request_usd = limits.request_usd if budget_usd is None else budget_usd
    scopes = [] if request_usd is None else [_scope(f"request:{call_id}", request_usd, limits)]
    if feature is not None:
        scopes.append(_scope(f"feature:{feature}", limits.features.get(feature), limits))
    if user is not None:
        scopes.append(_scope(f"user:{user}", limits.users.get(user), limits))
    scopes += [day_scope(extra, day_utc, limits) for extra in more]
    scopes.append(_scope(f"session:{session}", limits.session_usd, limits))
    scopes.append(_scope(f"day:{day_utc}", limits.day_usd, limits))
    return tuple(scopes)


def day_scope(extra: DayScope, day_utc: str, limits: BudgetSettings) -> Scope:
    """Return one of `more` of scopes_of as it is on a day."""
    return _scope(f"day:{day_utc}:{extra.name}", extra.day_usd, limits)


def scope_lines(limits: BudgetSettings, *, session: str, day_utc: str) -> tuple[Scope, ...]:
    """Return every scope that is worth showing: session and day always, features and users where they are limited."""
    named = [("feature", limits.features), ("user", limits.users)]
    scopes = [_scope(f"session:{session}", limits.session_usd, limits), _scope(f"day:{day_utc}", limits.day_usd, limits)]
    scopes += [_scope(f"{kind}:{name}", usd, limits) for kind, table in named for name, usd in sorted(table.items())]
    return tuple(scopes)


def room_usd(scope: Scope, balance: Balance | None) -> Decimal:
    """Return what may still be reserved in a scope, 0 at least; Infinity without a hard limit. balance None: nothing yet."""
    if scope.hard_usd is None:
        return Decimal("Infinity")
    used = balance.spent_usd + balance.reserved_usd if balance else Decimal(0)
    return max(Decimal(0), scope.hard_usd - used)


def fit_max_tokens(
    room_usd: Decimal, input_bytes: int, price: Price, wanted_max_tokens: int | None, minimum: int = MINIMUM_TOKENS
) -> int | None:
    """Return the max_tokens to send so that the attempt's worst case is at most room_usd, or None: it must be refused.

    That is wanted_max_tokens where it fits, else the most that does, if that is `minimum` or more. wanted_max_tokens None: no
    limit was asked for and the model's is unknown; then the most that fits, and None where the output is free and needs no limit.
    """
    if room_usd == Decimal("Infinity"):
        return wanted_max_tokens
    fits = affordable_tokens(room_usd, input_bytes, price)
    if fits is None or (wanted_max_tokens is not None and 0 < wanted_max_tokens <= fits):
        return wanted_max_tokens
    return fits if fits >= minimum else None


def crossed(scope: Scope, before_usd: Decimal, after_usd: Decimal) -> bool:
    """Whether spending went over the scope's soft limit just now: true once on the way up, so that one warning is shown."""
    return scope.soft_usd is not None and before_usd < scope.soft_usd <= after_usd


def _scope(name: str, hard_usd: Decimal | None, limits: BudgetSettings) -> Scope:
    return Scope(name) if hard_usd is None else Scope(name, hard_usd, hard_usd * _share(limits.soft))


@lru_cache(maxsize=16)
def _share(share: float) -> Decimal:
    return Decimal(str(share))  # through str: Decimal(0.8) would be 0.8000000000000000444
