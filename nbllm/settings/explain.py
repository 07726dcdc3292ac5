"""Settings as a table for people: name, value, origin, help."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from nbllm.money import format_usd
from nbllm.redaction import redact
from nbllm.settings.endpoint import FIELDS, Endpoint
from nbllm.settings.tables import SETTABLE

if TYPE_CHECKING:
    from nbllm.settings.settings import Explained, Settings

_NO_SIGNS = str.maketrans("", "", "$,<")
_TABLE_HELP = {
    "endpoints": "An endpoint: base_url, prices and limits.",
    "routes": "A route: model ids in the order in which they are tried, or a strategy that chooses among them.",
    "budget.features": "Most that a feature may cost, in USD.",
    "budget.users": "Most that a user may cost, in USD.",
}


def explain(settings: Settings) -> list[Explained]:
    """Return every setting, tables after the single values they belong to."""
    from nbllm.settings.settings import Explained

    flat = settings.flat()
    order = sorted(flat, key=lambda n: (list(SETTABLE).index(n) if n in SETTABLE else len(SETTABLE), n))
    return [Explained(name, as_text(flat[name]), settings.origin(name), _help(name)) for name in order]


def _help(name: str) -> str:
    option = SETTABLE.get(name)
    return option.help if option else next(text for table, text in _TABLE_HELP.items() if name.startswith(table + "."))


def as_text(value: Any) -> str:
    """Return a setting's value as a person would write it; secrets masked, an endpoint's key and headers left out."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        shown = format_usd(value)  # rounded for people; a limit that was set with more digits is shown with all of them
        return shown if Decimal(shown.translate(_NO_SIGNS)) == value else f"${value:f}"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, tuple):
        return redact(", ".join(map(str, value))) or "none"
    if isinstance(value, Endpoint):
        return _endpoint_text(value)
    if hasattr(value, "strategy"):
        from nbllm.settings.strategies import named

        return redact(f"{value.strategy}: {', '.join(dict.fromkeys(named(value)))}")
    return redact(str(value)) if str(value) else '""'


def _endpoint_text(endpoint: Endpoint) -> str:
    parts = [endpoint.base_url or "(no base_url)"]
    for name in FIELDS[1:]:
        value = getattr(endpoint, name)
        if name in {"api_key", "headers"}:
            parts += [f"{name} set"] if value else []
        elif value is not None and not (name == "verify_tls" and value):
            parts.append(f"{name} {as_text(value)}")
    return redact(", ".join(parts))
