"""Routes that choose, as they travel with an export: their tables, the routes that they name, their plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nbllm.export import toml_text
from nbllm.export.refusals import Refusal
from nbllm.settings.route_tables import FILES, table_of
from nbllm.settings.strategies import RouteSpec, Strategy, named

Line = Callable[[str, tuple[str, ...], Any, str], str]
Taken = Callable[[Path, str], str]
"""Takes a file along, given what names it, and returns its path in the export."""


def with_inner_routes(routes: Mapping[str, RouteSpec], known: Mapping[str, RouteSpec]) -> dict[str, RouteSpec]:
    """Return routes with those that they name, and those that these name."""
    found, todo = dict(routes), list(routes)
    while todo:
        for name in named(found[todo.pop()]):
            if name in known and name not in found:
                found[name] = known[name]
                todo.append(name)
    return found


def route_lines(
    routes: Mapping[str, RouteSpec], line: Line, origin_of: Callable[[str], str], taken: Taken, refusals: list[Refusal]
) -> Iterator[str]:
    """Yield the lines of [routes]: lists first, then a table for each route that chooses. line: makes one of a value."""
    lists = {name: spec for name, spec in sorted(routes.items()) if isinstance(spec, tuple)}
    if lists:
        yield "\n[routes]\n"
        yield from (line(f"routes.{n}", (n,), models, origin_of(f"routes.{n}")) for n, models in lists.items())
    for name, spec in sorted(routes.items()):
        if not isinstance(spec, tuple):
            origin = origin_of(f"routes.{name}")
            yield f"\n[{toml_text.key('routes', name)}]" + (f"  # {origin}\n" if origin else "\n")
            yield from (line(f"routes.{name}.{key}", (key,), given, "") for key, given in _values(name, spec, taken, refusals))


def _values(name: str, spec: Strategy, taken: Taken, refusals: list[Refusal]) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a route's table."""
    if getattr(spec, "check", None) is not None:
        refusals.append(
            Refusal(kind="settings", reason=f"the route {name} has a check in code, which settings cannot hold",
                    todo="Give check= with the calls, or use another accept")
        )  # fmt: skip
    for key, value in table_of(spec).items():
        yield key, taken(Path(value), f"routes.{name}.{key}") if key in FILES else value
