"""Money on disk: integer picodollars (1e-12 USD), so that sums are exact. An INTEGER of SQLite holds nine million dollars."""

from __future__ import annotations

from decimal import Decimal

PICO = Decimal(10) ** 12
_ONE_PICO = Decimal("1E-12")
_NOTHING = Decimal(0)
_LARGEST = 2**62
_MOST = Decimal(_LARGEST)


def to_pico(usd: Decimal) -> int:
    """Return picodollars; more than fits into a column is cut to what fits. Raises ValueError for NaN."""
    if not usd:
        return 0
    if usd.is_nan():
        raise ValueError("An amount of money is not a number.")
    pico = usd * PICO
    if abs(pico) > _MOST:
        return _LARGEST if usd > 0 else -_LARGEST
    return round(pico)  # half to even


def to_pico_or_none(usd: Decimal | None) -> int | None:
    """Return picodollars, None for unknown."""
    return None if usd is None else to_pico(usd)


def to_usd(pico: int) -> Decimal:
    """Return USD."""
    return Decimal(pico) * _ONE_PICO if pico else _NOTHING


def to_usd_or_none(pico: int | None) -> Decimal | None:
    """Return USD, None for unknown."""
    return None if pico is None else to_usd(pico)
