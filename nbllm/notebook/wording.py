"""Numbers in words for tables: unknown stays unknown, and every number says its unit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from nbllm.core import meter_line
from nbllm.money import format_usd

UNKNOWN = "unknown"


def usd(amount: Decimal | float | None) -> str:
    """Return an amount in USD as people read it, `unknown` for None."""
    return format_usd(amount if amount is None or isinstance(amount, Decimal) else Decimal(str(amount)))


def seconds(value: float | None) -> str:
    """Return a time as the meter line writes it, `unknown` for None."""
    if value is None:
        return UNKNOWN
    return meter_line.seconds(value) if value else "0 s"


def number(value: int | None) -> str:
    """Return a count with thousands set apart."""
    return UNKNOWN if value is None else f"{value:,}"


def many(value: float) -> str:
    """Return a large count in three digits: 950, 12.3k, 4.56M, 1.2B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit * 0.9995:
            return f"{value / unit:.3g}{name}" if value < 999.5 * unit else f"{value / unit:,.0f}{name}"
    return f"{value:.3g}"


def size(value: int) -> str:
    """Return bytes as kB, MB or GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:,.1f} {name}"
    return f"{value} B"


def age(value_s: float) -> str:
    """Return how long ago something was."""
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value_s >= unit_s:
            return f"{value_s / unit_s:.0f} {unit}"
    return f"{max(0.0, value_s):.0f} s"


def clock(unix_s: float) -> str:
    """Return a Unix time as local date and time, the zone left out."""
    return _local(unix_s).strftime("%Y-%m-%d %H:%M:%S")


def short_clock(unix_s: float, now: float) -> str:
    """Return a Unix time as local time, and as the date with hours and minutes when that is another day than now."""
    at = _local(unix_s)
    return at.strftime("%H:%M:%S" if at.date() == _local(now).date() else "%m-%d %H:%M")


def _local(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC).astimezone()


def simulated(there_are_some: bool) -> tuple[str, ...]:
    """Return the note for tables that hold calls of simulated models, () for others."""
    note = "Models that begin with sim/ are simulated, and so are their dollars: nobody is billed, yet they count on budgets."
    return (note,) if there_are_some else ()


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def bar(share: float, width: int = 10) -> str:
    """Return a bar of text for a share; the number beside it says the same."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "█" * full + "░" * (width - full)


def short_time(seconds: float) -> str:
    """Return a tick's time with its unit; 1e-9 guards against 0.9999999 ms."""
    for unit_s, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit_s * (1 - 1e-9):
            return f"{seconds / unit_s:g} {unit}"
    return f"{seconds:g} s"
