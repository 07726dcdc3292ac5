"""Which models are to answer, and why: a fixed list, or a route whose strategy has to be asked about each request.

Strategies: routing_rules.py (what the request says), routing_numbers.py (what the ledger and the limits say), cascade.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from nbllm.core.why import Why
from nbllm.errors import InvalidRequest

if TYPE_CHECKING:
    from nbllm.settings.strategies import RouteSpec

NAMED, MODEL, LADDER = (Why(reason=reason) for reason in ("named by the caller", "the configured model", "the ladder"))


class Route(Struct, frozen=True, gc=False):
    """Model ids in the order in which they are to be tried, and why these.

    strategy: the name of a route that has yet to choose; models are all that it may choose then, in route order.
    """

    models: tuple[str, ...]
    why: Why
    strategy: str | None = None


def fixed(
    named: tuple[str, ...],
    *,
    routes: Mapping[str, RouteSpec],
    model: str | None,
    ladder: tuple[str, ...],
    found: Route | None,
) -> Route | None:
    """Return the route of a request: what the caller named, else the configured model, else the ladder, else what was found.

    A name may be that of a route of the settings. None: nothing is named or configured and nothing was looked for yet.
    """
    if named:
        return _expanded(named, routes, NAMED)
    if model:
        return _expanded((model,), routes, MODEL)
    if ladder:
        return _expanded(ladder, routes, LADDER)
    return found


def _expanded(names: tuple[str, ...], routes: Mapping[str, RouteSpec], why: Why) -> Route:
    if len(names) == 1 and names[0] not in routes:
        return Route(names, why)
    if len(names) == 1 and not isinstance(routes[names[0]], tuple):
        from nbllm.settings.strategies import models_of

        return Route(models_of(names[0], routes), Why(route=names[0], reason=f"route {names[0]}"), names[0])
    models: list[str] = []
    for name in names:
        models.extend(_listed(name, routes))
    via = [name for name in names if name in routes]
    name = ", ".join(via)
    return Route(tuple(dict.fromkeys(models)), Why(route=name, reason=f"route {name}") if via else why)


def _listed(name: str, routes: Mapping[str, RouteSpec]) -> tuple[str, ...]:
    """Return the models of a name among several. Raises InvalidRequest for a route that would have to choose."""
    spec = routes.get(name, (name,))
    if not isinstance(spec, tuple):
        raise InvalidRequest(
            f"The route {name} chooses by itself and cannot stand in a list of models. Nothing was sent.",
            hint=f"Give model={name!r} alone; what comes after its models is said in the route.",
        )
    return spec
