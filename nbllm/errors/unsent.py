"""Errors that come before anything is sent: settings, requests that make no sense, money."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from nbllm.errors.base import NbllmError
from nbllm.money import format_usd
from nbllm.redaction import redact


class ConfigurationError(NbllmError):
    """Settings, endpoints or models that cannot work. Nothing was sent."""


class SettingsFileError(ConfigurationError):
    """A settings file that cannot be read; `path` and `line` (1-based, None when unknown) say where."""

    def __init__(self, message: str, *, path: str, line: int | None = None, hint: str = "") -> None:
        self.path = path
        self.line = line
        where = f"{path}, line {line}" if line else path
        super().__init__(f"{where}: {message}", hint=hint)


class FlowsNotServable(ConfigurationError):
    """Flows that no service can have; `faults` holds each reason, one line for one thing that is wrong."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(redact(fault) for fault in faults)
        super().__init__("These flows cannot be served:\n" + "\n".join(f"- {line}" for line in faults))


class UnknownModel(ConfigurationError):
    """No endpoint or provider answers to that model id."""


class KeyNotAllowed(ConfigurationError):
    """A key would have gone to a host that it is not for: not its provider's, or one that only a file names. Nothing was sent."""


class HomeUnusable(ConfigurationError):
    """NBLLM_HOME cannot be written, belongs to somebody else, or is a symbolic link."""


class InvalidPlan(ConfigurationError):
    """A calibrated plan that cannot be read, or whose numbers contradict each other."""


class InvalidRequest(NbllmError, ValueError):
    """A request that makes no sense. Nothing was sent."""


class UnusableText(InvalidRequest):
    """A text that no model can be sent: an empty one, or one with NUL or half of a surrogate pair. Nothing was sent."""


class TemplateError(InvalidRequest):
    """An undefined name or a syntax error in a prompt template. Nothing was sent."""


class SchemaError(InvalidRequest):
    """`schema=` is no schema that nbllm can turn into JSON Schema."""


class InvalidLabels(InvalidRequest):
    """Scores, labels, weights or rates that nothing can be calibrated on: empty, of different lengths, NaN, no numbers."""


class BudgetError(NbllmError):
    """Money: nothing was sent."""


class BudgetExceeded(BudgetError):
    """The worst case of an attempt does not fit into a hard budget.

    scope: the budget that refused, such as "session" or "feature:summaries".
    limit_usd, spent_usd, reserved_usd: its state; needed_usd: the attempt's worst case.
    """

    def __init__(
        self,
        *,
        scope: str,
        limit_usd: Decimal,
        spent_usd: Decimal,
        reserved_usd: Decimal,
        needed_usd: Decimal,
        hint: str = "",
    ) -> None:
        self.scope = scope
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.reserved_usd = reserved_usd
        self.needed_usd = needed_usd
        named = scope_named(scope)
        held = f" and {format_usd(reserved_usd)} is reserved by calls in flight" if reserved_usd else ""
        super().__init__(
            f"The {named} budget of {format_usd(limit_usd)} has {format_usd(spent_usd)} spent{held}; this attempt could cost "
            f"up to {format_usd(needed_usd)}. Nothing was sent.",
            hint=hint or _to_do(named, spent_usd + reserved_usd >= limit_usd),
        )


def _to_do(named: str, spent: bool) -> str:
    if named.startswith("daily "):
        wait = "It begins anew at midnight UTC"
        return f"{wait}." if spent else f"{wait}; until then ask for fewer max_tokens, or use a cheaper model."
    if spent:
        return f"It is used up: raise it (%llm_budget {named} AMOUNT)."
    return (
        f"Raise it (%llm_budget {named} AMOUNT), lower --max-tokens, or use a cheaper model. "
        "What it could cost is the worst case: without --max-tokens the longest answer that the model can give."
    )


def scope_named(scope: str) -> str:
    """Return a budget's scope as people call it.

    The ids of requests, sessions and days are ours; the names of features and users are the user's and tell them something.
    """
    kind, _, name = scope.partition(":")
    if kind == "day" and ":" in name:  # of somebody's own: day:2026-11-21:key:ab12
        return f"daily {' '.join(name.split(':')[1:])}"
    return f"{kind} {name}" if kind in {"feature", "user"} else kind


class BudgetUnavailable(BudgetError):
    """A hard budget that is shared could not be checked. Nothing was sent."""


class UnpricedModel(BudgetError):
    """A hard budget is set and the model's price is unknown. Nothing was sent."""
