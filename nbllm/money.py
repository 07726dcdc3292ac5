"""Money as people read it: the one place, used by errors, settings, meters, tables and the command line."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

_EXACT_ENOUGH = Context(prec=100, rounding=ROUND_HALF_EVEN)


def format_usd(usd: Decimal | None) -> str:
    """Return money as people read it: $1,234.50, $0.43, $0.0012; "unknown" for None.

    Below ten cents two significant digits are kept, so that small costs are never shown as nothing; below a millionth of a
    dollar it says so.
    """
    if usd is None:
        return "unknown"
    sign, size = ("-" if usd < 0 else ""), abs(usd)
    if 0 < size < Decimal("0.000001"):
        return f"{sign}<$0.000001"
    digits = 2 if not size or size >= Decimal("0.1") else max(2, 1 - size.adjusted())
    with localcontext(_EXACT_ENOUGH):
        shown = size.quantize(Decimal(1).scaleb(-digits))
    text = f"{shown:,f}"
    while digits > 2 and text.endswith("0"):
        text, digits = text[:-1], digits - 1
    return f"{sign}${text}"
