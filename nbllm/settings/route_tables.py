"""From a table of a settings file, or a mapping in code, to a strategy; every value is checked, and the culprit is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from nbllm.settings.option import BadValue, Option, shown
from nbllm.settings.patterns import checked_pattern
from nbllm.settings.strategies import STRATEGIES, Cascade, Rule, Strategy
from nbllm.settings.suggest import did_you_mean

Reader = Callable[[str, Any], Any]
FILES = ("plan",)
"""Fields that name a file; in a settings file they are relative to it."""
_MOST_RULES = 200
_MEANT = {
    "fixed": "a list of models",
    "rules": "task",
    "rule": "task",
    "llm": "classifier",
    "embedding": "learned",
    "spread": "weighted",
}


def route_from(table: Mapping[str, Any]) -> Strategy:
    """Return the strategy of a table; raises BadValue whose path names the field."""
    given = {field: value for field, value in table.items() if not (field == "check" and value is None)}
    name = given.pop("strategy", None)
    if not isinstance(name, str) or name not in STRATEGIES:
        said = "strategy is missing" if name is None else f"there is no strategy {shown(name)}"
        meant = _MEANT.get(name) if isinstance(name, str) else None
        hint = (
            f"Did you mean {meant}?"
            if meant
            else did_you_mean(str(name), STRATEGIES)
            if name
            else f"One of {', '.join(STRATEGIES)}."
        )
        raise BadValue(said, hint=hint, path=("strategy",))
    kind = STRATEGIES[name]
    made: Strategy = kind(**_values(kind, given, f"a route of strategy {name}"))
    if isinstance(made, Cascade):
        _check_cascade(made)
    return made


def table_of(spec: Strategy) -> dict[str, Any]:
    """Return the table from which route_from makes the same strategy again, without what has its default and without `check`."""
    table: dict[str, Any] = {"strategy": spec.strategy}
    return table | _plain(spec)


def _plain(made: Any) -> dict[str, Any]:
    """Return the fields that are no defaults, as a settings file holds them."""
    values: dict[str, Any] = {}
    for field in fields(made):
        value = getattr(made, field.name)
        default = field.default if field.default is not MISSING else None
        if value == default or field.name == "check":
            continue
        if field.name == "rules":
            value = [_plain(rule) for rule in value]
        elif isinstance(value, Mapping):
            value = {name: _short(one) for name, one in value.items()}
        values[field.name] = _short(value)
    return values


def _short(value: Any) -> Any:
    """Return a tuple as a list, one of a single name as the name."""
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def _values(kind: type, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the checked fields of a dataclass."""
    known = {field.name: field for field in fields(kind)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise BadValue(f"{what} has no field {name!r}", hint=did_you_mean(name, known, limit=20), path=(name,))
        if value is None and known[name].default is None:
            continue
        try:
            values[name] = _READERS[name](name, value)
        except BadValue as error:
            raise BadValue(error.problem, hint=error.hint, path=(name, *error.path)) from None
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise BadValue(f"{what} needs {name}", hint=_NEEDED.get(name, ""), path=())
    return values


def _check_cascade(made: Cascade) -> None:
    """Refuse a cascade that could not accept, or has only one model."""
    if len(made.models) < 2:
        raise BadValue("a cascade needs at least two models", hint="The cheap one first.", path=("models",))
    if made.accept == "logprob" and (made.min_logprob is None) == (made.plan is None):
        raise BadValue(
            'accept = "logprob" needs min_logprob, or a plan of calibrate_threshold, and not both',
            hint="For example min_logprob = -0.3: the mean over the answer's tokens, at most 0.",
            path=("min_logprob",),
        )
    if made.accept == "verifier" and made.verifier is None:
        raise BadValue(
            'accept = "verifier" needs verifier', hint='For example verifier = "openai/gpt-4o-mini".', path=("verifier",)
        )
    for name, needed in (("min_logprob", "logprob"), ("plan", "logprob"), ("verifier", "verifier"), ("check", "valid")):
        if getattr(made, name) is not None and made.accept != needed:
            raise BadValue(f'{name} is for accept = "{needed}", not "{made.accept}"', path=(name,))


# ---------------------------------------------------------------------------------------------------- readers


def _option(**how: Any) -> Reader:
    def read(name: str, value: Any) -> Any:
        return Option(name=name, default=None, help="", optional=False, **how).value(value)

    return read


def _names(name: str, value: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = _option(kind="texts", is_name=True)(name, value)
    if not names:
        raise BadValue(f"{name} needs at least one model")
    if len(set(names)) < len(names):
        raise BadValue(f"{name} names {next(n for n in names if names.count(n) > 1)} twice")
    return names


def _labels(name: str, value: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping) or not value or not all(isinstance(label, str) and label.strip() for label in value):
        raise BadValue(
            f"{name} must map labels to models, not {shown(value)}", hint='For example { easy = "sim/small", hard = "sim/large" }.'
        )
    if len({label.strip().casefold() for label in value}) < len(value):
        raise BadValue(f"{name} holds two labels that differ in case only")
    return {label.strip(): _names(label, models) for label, models in value.items()}


def _weights(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise BadValue(f"{name} must map models to weights, not {shown(value)}", hint='For example { "a/x" = 3, "b/y" = 1 }.')
    weights = {}
    for model, weight in value.items():
        _option(kind="text", is_name=True)(name, model)
        try:
            weights[model] = float(_option(kind="number", at_least=0, at_most=1e9)(f"the weight of {model}", weight))
        except BadValue as error:
            raise BadValue(error.problem, path=(model,)) from None
    if not math.fsum(weights.values()) > 0:
        raise BadValue(f"the {name} sum to 0, so no model could be chosen", hint="Give at least one of them a weight above 0.")
    return weights


def _rules(name: str, value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise BadValue(
            f"{name} must be a list of rules, not {shown(value)}",
            hint='For example [{ feature = "summaries", use = "sim/small" }].',
        )
    if len(value) > _MOST_RULES:
        raise BadValue(f"{len(value)} {name} are too many; at most {_MOST_RULES}")
    made = []
    for number, rule in enumerate(value, start=1):
        if isinstance(rule, Rule):
            made.append(rule)
            continue
        if not isinstance(rule, Mapping):
            raise BadValue(f"rule {number} must be a table, not {shown(rule)}")
        try:
            made.append(Rule(**_values(Rule, rule, f"rule {number}")))
        except BadValue as error:
            raise BadValue(f"rule {number}: {error.problem}", hint=error.hint) from None
    return tuple(made)


def _pattern(name: str, value: Any) -> str:
    return checked_pattern(_option(kind="text")(name, value))


def _code(name: str, value: Any) -> Any:
    if not callable(value):
        raise BadValue(f"{name} must be a function, given in code: Client(routes=...)")
    return value


_name = _option(kind="text", is_name=True)
_text = _option(kind="text")
_NEEDED = {
    "otherwise": "The models for everything else, and for when a helper fails.",
    "use": 'For example use = "sim/small".',
    "labels": 'For example labels = { easy = "sim/small", hard = "sim/large" }.',
    "accept": 'One of "logprob", "valid", "verifier".',
}
_READERS: Mapping[str, Reader] = {
    **dict.fromkeys(("use", "otherwise", "models", "stable", "canary"), _names),
    **dict.fromkeys(("feature", "user", "tag", "language", "model", "embedder", "verifier"), _name),
    **dict.fromkeys(("instructions", "plan"), _text),
    **dict.fromkeys(("longer_than", "shorter_than"), _option(kind="integer", at_least=0)),
    "contains": _option(kind="texts"),
    "matches": _pattern,
    "rules": _rules,
    "labels": _labels,
    "weights": _weights,
    "by": _option(kind="choice", choices=("user", "request")),
    "share": _option(kind="share", at_least=0, at_most=1),
    "strong_share": _option(kind="share", at_least=0, at_most=1),
    "accept": _option(kind="choice", choices=("logprob", "valid", "verifier")),
    "min_logprob": _option(kind="number", at_most=0),
    "repairs": _option(kind="integer", at_least=0, at_most=20),
    "if_none": _option(kind="choice", choices=("best", "raise")),
    "at_most_s": _option(kind="number", above=0, at_most=3600),
    "wait_s": _option(kind="number", at_least=0, at_most=3600),
    "max_tokens": _option(kind="integer", at_least=1),
    "most_chars": _option(kind="integer", at_least=100, at_most=1_000_000),
    "min_calls": _option(kind="integer", at_least=1, at_most=200),
    "check": _code,
}
