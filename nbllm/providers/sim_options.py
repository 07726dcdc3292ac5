"""What may be written behind `sim/`: the two simulated models, their pace and prices, and faults on request.

sim/large
sim/large?seed=3&ttft_s=0.1&tok_s=200
sim/small?fault=429&retry_after_s=2&fault_times=1
sim/small?fault=stall_mid&fault_rate=0.2
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from nbllm.core.pricing import Price
from nbllm.errors import UnknownModel
from nbllm.settings.suggest import did_you_mean

FAULTS = {
    "400": "a parameter is refused",
    "401": "the key is refused",
    "403": "the model is not allowed for this key",
    "404": "the model does not exist",
    "429": "too many requests, with retry_after_s= if given",
    "500": "server error",
    "503": "overloaded",
    "refused": "connection refused, nothing is sent",
    "reset": "connection reset before the answer begins",
    "stall": "silence before the first token",
    "stall_mid": "silence after some tokens",
    "cut": "connection reset after some tokens",
    "eof": "the stream ends after some tokens without saying so",
    "slow": "eight times slower than usual",
    "drip": "one token every drip_s seconds",
    "length": "cut by the provider's own limit, finish length",
    "filter": "a content filter refuses",
    "context": "the prompt is too long for the window",
    "bad_json": "a complete answer whose JSON is broken",
    "empty": "a success without an answer in it",
    "malformed": "a success whose body is no JSON",
}
"""Every fault and what it plays."""


@dataclass(frozen=True, slots=True)
class SimModel:
    """One simulated model.

    ttft_s: median of the time to the first token, in seconds; tok_s: median pace in tokens a second; noise: how far it strays
    from the best choice of sentences (0: never). Prices are those of typical small and large models, so that costs look real.
    """

    name: str
    ttft_s: float
    tok_s: float
    noise: float
    price: Price
    context_tokens: int
    max_output_tokens: int


MODELS = {
    "small": SimModel("small", 0.15, 160.0, 0.45, Price(Decimal("0.15"), Decimal("0.60"), Decimal("0.075")), 16_384, 4_096),
    "large": SimModel("large", 0.35, 84.0, 0.1, Price(Decimal("2.50"), Decimal(10), Decimal("1.25")), 131_072, 16_384),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """What was asked for behind the `?`.

    seed: another world, same for the same number. ttft_s, tok_s: instead of the model's medians (0: at once). jitter: 0 makes
    the pace even. fault: one of FAULTS. fault_rate: the share of attempts that fail (seeded). fault_times: only the first so many
    attempts of each prompt fail. retry_after_s: what a 429 or 503 asks for. after_tokens: how much comes before a fault in
    mid-answer. drip_s: seconds a token for `drip`.
    """

    model: SimModel
    seed: int = 0
    ttft_s: float | None = None
    tok_s: float | None = None
    jitter: float = 1.0
    fault: str | None = None
    fault_rate: float = 1.0
    fault_times: int | None = None
    retry_after_s: float | None = None
    after_tokens: int = 8
    drip_s: float = 1.0


_OPTIONS = [option.name for option in fields(SimOptions) if option.name != "model"]


@lru_cache(maxsize=256)
def parse(model: str) -> SimOptions:
    """Return what `large?fault=stall&seed=3` asks for. Raises UnknownModel, naming the wrong part and what there is."""
    name, _, query = model.partition("?")
    if name not in MODELS:
        raise UnknownModel(f"There is no simulated model {name!r}.", hint=did_you_mean(name, MODELS) + _example())
    given: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key == "429_after":
            given |= {"fault": "429", "retry_after_s": _number(model, key, text, at_least=0)}
        elif key in _READERS:
            given[key] = _READERS[key](model, key, text)
        else:
            raise UnknownModel(f"sim/{model}: there is no option {key!r}.", hint=did_you_mean(key, _OPTIONS, limit=20))
    if query and not given:
        raise UnknownModel(f"sim/{model}: {query!r} is no option.", hint=f"Options look like sim/{name}?fault=stall&seed=3.")
    return SimOptions(model=MODELS[name], **given)


def _example() -> str:
    return " Options follow a question mark: sim/large?fault=stall&seed=3."


def _number(model: str, key: str, text: str, *, at_least: float, at_most: float = 1e6) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not at_least <= number <= at_most:
        raise UnknownModel(f"sim/{model}: {key} must be a number from {at_least:g} to {at_most:g}, not {text!r}.")
    return number


def _whole(model: str, key: str, text: str, *, at_least: int) -> int:
    number = _number(model, key, text, at_least=at_least, at_most=2**53)
    if number != int(number):
        raise UnknownModel(f"sim/{model}: {key} must be a whole number, not {text!r}.")
    return int(number)


def _fault(model: str, key: str, text: str) -> str:
    if text not in FAULTS:
        raise UnknownModel(f"sim/{model}: there is no {key} {text!r}.", hint=did_you_mean(text, FAULTS, limit=len(FAULTS)))
    return text


_READERS: dict[str, Callable[[str, str, str], Any]] = {
    "seed": lambda m, k, t: _whole(m, k, t, at_least=-(2**53)),
    "ttft_s": lambda m, k, t: _number(m, k, t, at_least=0),
    "tok_s": lambda m, k, t: _number(m, k, t, at_least=0.001),
    "jitter": lambda m, k, t: _number(m, k, t, at_least=0, at_most=3),
    "fault": _fault,
    "fault_rate": lambda m, k, t: _number(m, k, t, at_least=0, at_most=1),
    "fault_times": lambda m, k, t: _whole(m, k, t, at_least=0),
    "retry_after_s": lambda m, k, t: _number(m, k, t, at_least=0),
    "after_tokens": lambda m, k, t: _whole(m, k, t, at_least=1),
    "drip_s": lambda m, k, t: _number(m, k, t, at_least=0.001),
}
