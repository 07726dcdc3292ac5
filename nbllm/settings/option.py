"""One option: its kind, range, default and help, and how a value given for it is checked.

The tables in nbllm.settings.tables are made of these; settings files, environment variables, %llm_config, the magics' flags and
the keywords of `ask` are all checked by them, so a value is good or bad in the same way wherever it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Any, Literal

Kind = Literal["text", "texts", "number", "integer", "share", "money", "flag", "choice", "mapping", "mappings", "logprobs", "code"]
MAX_NAME_CHARS = 200


class BadValue(ValueError):
    """A value that will not do. `path` leads to the part of it that is wrong; callers raise the error that fits their place."""

    def __init__(self, problem: str, *, hint: str = "", path: tuple[str, ...] = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.path = path

    def at(self, where: str) -> str:
        """Return the problem as a sentence, with the place in front unless the sentence begins with it."""
        tail = where.rpartition(".")[2]
        return f"{self.problem}." if self.problem.startswith((where, tail)) else f"{where}: {self.problem}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    at_least, at_most: bounds that belong to the range; above: one that does not. optional: None is a value. in_settings: may
    stand in a settings file, NBLLM_* and %llm_config; else it is for code only. is_name: short, one line (a feature, a user).
    """

    name: str
    kind: Kind
    default: Any
    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = True
    in_settings: bool = True
    is_name: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that sets it: NBLLM_ and the name in capitals, with _ for the dot."""
        return "NBLLM_" + self.name.upper().replace(".", "_")

    @property
    def metavar(self) -> str:
        """What stands for its value in a usage line."""
        names = {
            "number": "N",
            "integer": "N",
            "share": "SHARE",
            "money": "USD",
            "texts": "A,B",
            "mapping": "JSON",
            "mappings": "JSON",
        }
        if self.kind == "number" and self.name.endswith("_s"):
            return "SECONDS"
        return "|".join(self.choices) if self.choices else names.get(self.kind, self.name.upper())

    def value(self, given: Any) -> Any:
        """Return the value in its normal form (Decimal for money, tuple for texts); raises BadValue."""
        if given is None:
            if not self.optional:
                raise BadValue(f"{self.name} cannot be None", hint=self.help)
            return None
        return _CHECKS[self.kind](self, given)

    def parse(self, text: str) -> Any:
        """Return the value that a person wrote as text, in a variable or after a flag; raises BadValue."""
        text = text.strip()
        if self.optional and text.casefold() in {"", "none"}:
            return None
        parser = _PARSERS.get(self.kind)
        return self.value(parser(self, text) if parser else text)

    def in_range(self, number: float | Decimal, given: Any) -> None:
        """Raise BadValue unless the number is finite and within bounds."""
        if not math.isfinite(number):
            raise BadValue(f"{self.name} must be a finite number, not {shown(given)}")
        if self.above is not None and number <= self.above:
            raise BadValue(f"{self.name} must be greater than {self.above:g}, not {shown(given)}")
        if self.at_least is not None and number < self.at_least:
            raise BadValue(f"{self.name} must be at least {self.at_least:g}, not {shown(given)}")
        if self.at_most is not None and number > self.at_most:
            raise BadValue(f"{self.name} must be at most {self.at_most:g}, not {shown(given)}")


def shown(value: Any) -> str:
    """Return a value as a message shows it: short and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _wrong(option: Option, wanted: str, given: Any) -> BadValue:
    return BadValue(f"{option.name} must be {wanted}, not {shown(given)} ({type(given).__name__})")


def _number(option: Option, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, Real | Decimal):
        raise _wrong(option, "a number", given)
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    option.in_range(number, given)
    return number


def _integer(option: Option, given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise _wrong(option, "a whole number", given)
    number = int(given)
    if abs(number) > 2**63 - 1:
        raise BadValue(f"{option.name} does not fit into 64 bits: {shown(given)}")
    option.in_range(number, given)
    return number


def money(name: str, given: Any) -> Decimal:
    """Return an amount in USD, finite and not negative; floats are read as they print. Raises BadValue."""
    if isinstance(given, bool) or not isinstance(given, Decimal | Real | str):
        raise BadValue(f"{name} must be an amount in USD, not {shown(given)} ({type(given).__name__})")
    try:
        amount = given if isinstance(given, Decimal) else Decimal(str(given).strip().removeprefix("$"))
    except InvalidOperation:
        raise BadValue(f"{name} must be an amount in USD such as 5.00, not {shown(given)}") from None
    if not amount.is_finite():
        raise BadValue(f"{name} must be a finite amount, not {shown(given)}")
    if amount < 0:
        raise BadValue(f"{name} must not be negative, but is {shown(given)}")
    if amount > 10**6:
        raise BadValue(f"{name} must be at most 1,000,000 USD, not {shown(given)}")
    return amount


def _money(option: Option, given: Any) -> Decimal:
    return money(option.name, given)


def _flag(option: Option, given: Any) -> bool:
    if not isinstance(given, bool):
        raise _wrong(option, "true or false", given)
    return given


def _text(option: Option, given: Any) -> str:
    if not isinstance(given, str):
        raise _wrong(option, "text", given)
    if option.is_name:
        if not given.strip():
            raise BadValue(f"{option.name} must not be empty")
        if len(given) > MAX_NAME_CHARS or not given.isprintable():
            raise BadValue(f"{option.name} must be one line of at most {MAX_NAME_CHARS} characters, not {shown(given)}")
    return given


def _texts(option: Option, given: Any) -> tuple[str, ...]:
    items = (given,) if isinstance(given, str) else given
    if not isinstance(items, list | tuple) or not all(isinstance(i, str) and i for i in items):
        raise _wrong(option, "text or a list of texts, none of them empty", given)
    if option.is_name:
        for item in items:
            _text(option, item)
    return tuple(items)


def _choice(option: Option, given: Any) -> str:
    if not isinstance(given, str) or given not in option.choices:
        raise BadValue(f"{option.name} must be one of {', '.join(option.choices)}, not {shown(given)}")
    return given


def _mapping(option: Option, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(k, str) for k in given):
        raise _wrong(option, "a mapping with text keys", given)
    return dict(given)


def _mappings(option: Option, given: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(given, list | tuple):
        raise _wrong(option, "a list of mappings", given)
    return tuple(_mapping(option, item) for item in given)


def _logprobs(option: Option, given: Any) -> bool | int:
    return given if isinstance(given, bool) else _integer(option, given)


def _code(option: Option, given: Any) -> Any:
    if option.name == "check" and not callable(given):
        raise _wrong(option, "a function", given)
    return given


_CHECKS: dict[str, Callable[[Option, Any], Any]] = {
    "text": _text, "texts": _texts, "number": _number, "integer": _integer, "share": _number, "money": _money, "flag": _flag,
    "choice": _choice, "mapping": _mapping, "mappings": _mappings, "logprobs": _logprobs, "code": _code,
}  # fmt: skip


def _parse_number(option: Option, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadValue(f"{option.name} must be a number, not {shown(text)}") from None


def _parse_integer(option: Option, text: str) -> int:
    try:
        return int(text[:40])
    except ValueError:
        raise BadValue(f"{option.name} must be a whole number, not {shown(text)}") from None


def _parse_share(option: Option, text: str) -> float:
    return _parse_number(option, text[:-1]) / 100 if text.endswith("%") else _parse_number(option, text)


def _parse_flag(option: Option, text: str) -> bool:
    word = text.casefold()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise BadValue(f"{option.name} must be true or false, not {shown(text)}")


def _parse_json(option: Option, text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{option.name} must be JSON: {error}") from None


def _parse_logprobs(option: Option, text: str) -> bool | int:
    return _parse_integer(option, text) if text.isdigit() else _parse_flag(option, text)


_PARSERS: dict[str, Callable[[Option, str], Any]] = {
    "number": _parse_number, "integer": _parse_integer, "share": _parse_share, "flag": _parse_flag, "logprobs": _parse_logprobs,
    "texts": lambda _, text: [t.strip() for t in text.split(",") if t.strip()], "mapping": _parse_json, "mappings": _parse_json,
}  # fmt: skip
