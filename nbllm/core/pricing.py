"""Money: price per million tokens, cost, worst case, and how it is counted and shown.

Decimal in Python, INTEGER picodollars in SQLite (1 USD = 10**12 picodollars). An unknown price or count makes an unknown cost
(None), never 0. All arithmetic is exact: it runs in a context of its own, whatever precision the caller's thread has set.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal, Inexact, localcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbllm.core.messages import Usage

PICO_DIGITS = 12
_EXACT = Context(prec=100, rounding=ROUND_CEILING, traps=[Inexact])
_ROUND = Context(prec=100, rounding=ROUND_CEILING)


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices of a whole request once its input has more than `above_input_tokens` (how Google, OpenAI and Anthropic charge
    long contexts: the higher price holds for all of its tokens, not only for those above).
    """

    above_input_tokens: int
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens. cached_input None: cached tokens cost what others do. `tiers`: long-context prices, ascending."""

    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal | None = None
    tiers: tuple[Tier, ...] = ()

    def at(self, input_tokens: int) -> Price | Tier:
        """Return the prices that hold for a request of that many input tokens."""
        holds: Price | Tier = self
        for tier in self.tiers:
            if input_tokens > tier.above_input_tokens:
                holds = tier
        return holds


def cost(usage: Usage, price: Price | None) -> Decimal | None:
    """Return what the counts cost in USD, exactly; None when the price, or a count that costs something, is unknown.

    Conventions are OpenAI's: input_tokens includes the cached ones, output_tokens includes the reasoning ones. More cached
    tokens than input tokens count as all of them.
    """
    if price is None:
        return None
    if usage.input_tokens is None and (price.input_usd_per_mtok or price.tiers):
        return None
    total = usage.input_tokens or 0
    rate = price.at(total)
    if usage.output_tokens is None and rate.output_usd_per_mtok:
        return None
    cached = min(usage.cached_input_tokens or 0, total)
    cached_rate = rate.input_usd_per_mtok if rate.cached_input_usd_per_mtok is None else rate.cached_input_usd_per_mtok
    # By the context's own methods: to enter and leave it would take longer than to reckon.
    exact = _EXACT
    per_million = exact.fma(
        total - cached,
        rate.input_usd_per_mtok,
        exact.fma(cached, cached_rate, exact.multiply(usage.output_tokens or 0, rate.output_usd_per_mtok)),
    )
    return exact.scaleb(per_million, -6)


def worst_case_input(input_bytes: int, price: Price) -> Decimal:
    """Return the most that a request of that many bytes on the wire can cost before its answer, in USD.

    A token of a byte-level tokenizer stands for at least one byte, and the JSON around a message is longer than the tokens
    that a chat template puts around it; so the bytes on the wire bound the tokens. Content that the request only names by URL
    (a remote image) is not bounded by this.
    """
    return worst_case(input_bytes, 0, price)


def worst_case(input_bytes: int, max_tokens: int, price: Price) -> Decimal:
    """Return the most that one attempt can cost, in USD: worst_case_input's bound and max_tokens, at the dearest tier in reach."""
    exact = _EXACT  # by its own methods, see cost
    per_million = [
        exact.fma(input_bytes, _dearest(rate), exact.multiply(max_tokens, rate.output_usd_per_mtok))
        for rate in _reachable(price, input_bytes)
    ]
    return exact.scaleb(max(per_million), -6)


def affordable_tokens(room_usd: Decimal, input_bytes: int, price: Price) -> int | None:
    """Return the largest max_tokens whose worst case fits into room_usd; None when output is free, negative never (0 at least).

    0 also when not even the input fits.
    """
    if worst_case_input(input_bytes, price) > room_usd:
        return 0
    if not any(rate.output_usd_per_mtok for rate in _reachable(price, input_bytes)):
        return None
    with localcontext(_ROUND):
        fits = [
            (room_usd.scaleb(6) - input_bytes * _dearest(rate)) // rate.output_usd_per_mtok
            for rate in _reachable(price, input_bytes)
            if rate.output_usd_per_mtok
        ]
    return max(0, int(min(fits)))


def _dearest(rate: Price | Tier) -> Decimal:
    """Return the most that an input token costs, cached or not."""
    cached = rate.cached_input_usd_per_mtok
    return rate.input_usd_per_mtok if cached is None else max(rate.input_usd_per_mtok, cached)


def _reachable(price: Price, input_bytes: int) -> list[Price | Tier]:
    return [price, *(tier for tier in price.tiers if input_bytes > tier.above_input_tokens)]


def to_pico(usd: Decimal) -> int:
    """Return USD as whole picodollars, rounded up: a cost is never booked lower than it is. ValueError for NaN and infinities."""
    if not usd.is_finite():
        msg = f"{usd} is no amount of money"
        raise ValueError(msg)
    with localcontext(_ROUND):
        return int(usd.scaleb(PICO_DIGITS).to_integral_value(rounding=ROUND_CEILING))


def from_pico(picodollars: int) -> Decimal:
    """Return picodollars as USD, exactly. `to_pico(from_pico(n)) == n` for any n."""
    with localcontext(_EXACT):
        return Decimal(picodollars).scaleb(-PICO_DIGITS)


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has, for answers whose provider did not say (cut, cancelled); at least 1 for a text.

    Four ASCII characters a token is OpenAI's rule of thumb for English ("What are tokens and how to count them"). Other
    scripts need about one token for three bytes of UTF-8 in the current vocabularies. Expect 20% off, more for code and numbers.
    """
    if not text:
        return 0
    ascii_chars = len(text.encode("ascii", "ignore"))
    other_bytes = len(text.encode("utf-8", "surrogatepass")) - ascii_chars
    return max(1, -(-(3 * ascii_chars + 4 * other_bytes) // 12))
