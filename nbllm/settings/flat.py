"""Flat names: every setting as one name and one value, such as budget.session_usd, endpoints.lab or routes.cheap.

Files, variables, %llm_config and Client(...) are all turned into flat names first; later ones replace earlier ones, each with its
origin, and Settings is built from the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nbllm.settings.budgets import BudgetSettings
from nbllm.settings.endpoint import FIELDS, Endpoint, endpoint_from
from nbllm.settings.option import BadValue, Option, money, shown
from nbllm.settings.semantic import FIELDS as SEMANTIC_FIELDS
from nbllm.settings.semantic import SemanticSettings
from nbllm.settings.suggest import did_you_mean
from nbllm.settings.tables import CALL_OPTIONS, SETTABLE

if TYPE_CHECKING:
    from nbllm.settings.strategies import RouteSpec

TABLES = ("endpoints", "routes", "budget", "budget.features", "budget.users", "semantic_cache")
_ROUTE = Option(
    name="route", kind="texts", default=(), help="Model ids in the order in which they are tried.", optional=False, is_name=True
)
_BUDGET_FIELDS = ("request_usd", "session_usd", "day_usd", "soft", "features", "users")
_FIELDS = {"budget": _BUDGET_FIELDS, "semantic_cache": SEMANTIC_FIELDS}


def flat_values(name: str, value: Any, *, as_text: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield flat names and checked values for one name as a person gives it; raises BadValue whose path leads to the culprit.

    as_text: text is parsed (variables, %llm_config); else it must already have its type (files, code).
    """
    name = canonical(name)
    if name in SETTABLE:
        option = SETTABLE[name]
        checked = option.parse(value) if as_text and isinstance(value, str) else option.value(value)
        if name == "ladder" and isinstance(value, str) and not as_text:
            raise BadValue("ladder must be a list of model ids", path=(name,))
        yield name, checked
    elif name in TABLES:
        yield from _table(name, value)
    elif name.startswith("endpoints."):
        yield f"endpoints.{_plain_name(name.partition('.')[2])}", _endpoint(value)
    elif name.startswith("routes."):
        yield f"routes.{_plain_name(name.partition('.')[2])}", _route(value, as_text=as_text)
    elif name.startswith(("budget.features.", "budget.users.")):
        yield name, None if value is None else money(name, value)
    else:
        raise _unknown(name)


def canonical(name: str) -> str:
    """Return a flat name for what a person writes: budget_session_usd, budgets.session_usd and deadline-s are understood."""
    name = name.replace("-", "_") if "." not in name else name
    head, dot, rest = name.partition(".")
    if head == "budgets":
        name = "budget" + dot + rest
    if name.startswith("budget_") and f"budget.{name[7:]}" in (*SETTABLE, *TABLES):
        return f"budget.{name[7:]}"
    return name


def _unknown(name: str) -> BadValue:
    if name in CALL_OPTIONS:
        hint = "Write budget.request_usd." if name == "budget_usd" else f"Give {name}= with the call."
        return BadValue(f"{name} is an option of a call, not a setting", hint=hint, path=(name,))
    if name in {"api_key", "key", "token", "base_url", "api_base"}:
        hint = 'Set the provider\'s variable (OPENAI_API_KEY ...), or make an endpoint: endpoints={"lab": Endpoint(base_url=..., '
        return BadValue(
            f"{name} belongs to an endpoint, not to the settings",
            hint=hint + 'api_key_env="LAB_KEY")}, model="lab/..."',
            path=(name,),
        )
    known = (*SETTABLE, *TABLES)
    return BadValue(f"there is no setting {name!r}", hint=did_you_mean(name, known, limit=60), path=(name,))


def _table(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BudgetSettings | SemanticSettings):
        value = {field: getattr(value, field) for field in _FIELDS[name] if hasattr(value, field)}
    if not isinstance(value, Mapping):
        raise BadValue(f"{name} must be a table, not {shown(value)}", path=(name,))
    for key, item in value.items():
        if name in _FIELDS and key not in _FIELDS[name]:
            what = "budget" if name == "budget" else "setting"
            raise BadValue(f"there is no {what} {key!r}", hint=did_you_mean(key, _FIELDS[name]), path=(key,))
        try:
            yield from flat_values(f"{name}.{key}", item)
        except BadValue as error:
            inner = error.path[1:] if error.path[:1] == (f"{name}.{key}",) else error.path
            raise BadValue(error.problem, hint=error.hint, path=(key, *inner)) from None


def _endpoint(value: Any) -> Endpoint | None:
    if value is None or isinstance(value, Endpoint):
        return value
    if not isinstance(value, Mapping):
        raise BadValue(f"an endpoint must be Endpoint(...) or a table with {', '.join(FIELDS[:2])} ..., not {shown(value)}")
    return endpoint_from(value)


def _route(value: Any, *, as_text: bool) -> RouteSpec | None:
    if value is None:
        return None
    if isinstance(value, Mapping) or hasattr(value, "strategy"):
        from nbllm.settings.route_tables import route_from, table_of

        return route_from(value if isinstance(value, Mapping) else {**table_of(value), "check": getattr(value, "check", None)})
    if isinstance(value, str) and not as_text:
        raise BadValue("a route must be a list of model ids, or a table with a strategy")
    models: tuple[str, ...] = _ROUTE.parse(value) if isinstance(value, str) else _ROUTE.value(value)
    if not models:
        raise BadValue("a route needs at least one model id")
    return models


def _plain_name(name: str) -> str:
    if not name or len(name) > 100 or any(not (c.isalnum() or c in "._-") for c in name) or name.startswith("."):
        raise BadValue(f"{shown(name)} cannot be a name here: use letters, digits, '.', '_' and '-'")
    return name
