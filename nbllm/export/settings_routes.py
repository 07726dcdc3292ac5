"""Routes that choose, as they travel with an export: their tables, the routes that they name, their plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nbllm.export.refusals import Refusal
from nbllm.settings.route_tables import FILES, table_of
from nbllm.settings.strategies import RouteSpec, Strategy, named


def with_inner_routes(routes: Mapping[str, RouteSpec], known: Mapping[str, RouteSpec]) -> dict[str, RouteSpec]:
    """Return routes with those that they name, and those that these name."""
    found, todo = dict(routes), list(routes)
    while todo:
        for name in named(found[todo.pop()]):
            if name in known and name not in found:
                found[name] = known[name]
                todo.append(name)
    return found


def strategy_values(
    name: str, spec: Strategy, taken: Callable[[Path, str], str], refusals: list[Refusal]
) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a route's table. taken: takes a file along and says where it is in the export."""
    if getattr(spec, "check", None) is not None:
        refusals.append(
            Refusal(kind="settings", reason=f"the route {name} has a check in code, which settings cannot hold",
                    todo="Give check= with the calls, or use another accept")
        )  # fmt: skip
    for key, value in table_of(spec).items():
        yield key, taken(Path(value), f"routes.{name}.{key}") if key in FILES else value
