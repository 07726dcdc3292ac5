"""Numbers in words for tables: unknown stays unknown, and every number says its unit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from nbllm.core.pricing import format_usd

UNKNOWN = "unknown"


def usd(amount: Decimal | float | None) -> str:
    """Return an amount in USD as people read it, `unknown` for None."""
    return format_usd(amount if amount is None or isinstance(amount, Decimal) else Decimal(str(amount)))


def seconds(value: float | None) -> str:
    """Return seconds with the precision that means something."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0 s"
    return f"{value * 1000:.2g} ms" if value < 0.01 else f"{value:.2f} s" if value < 100 else f"{value:,.0f} s"


def number(value: int | None) -> str:
    """Return a count with thousands set apart."""
    return UNKNOWN if value is None else f"{value:,}"


def size(value: int) -> str:
    """Return bytes as kB or MB."""
    return f"{value} B" if value < 1000 else f"{value / 1e3:.1f} kB" if value < 1e6 else f"{value / 1e6:,.1f} MB"


def age(value_s: float) -> str:
    """Return how long ago something was."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value_s >= unit_s:
            return f"{value_s / unit_s:.0f} {unit}"
    return f"{max(0.0, value_s):.0f} s"


def clock(unix_s: float) -> str:
    """Return a Unix time as local date and time, the zone left out."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().strftime("%m-%d %H:%M:%S")


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def bar(share: float, width: int = 10) -> str:
    """Return a bar of text for a share; the number beside it says the same."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "█" * full + "░" * (width - full)
