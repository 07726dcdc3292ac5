"""Which models are to answer, and why. A fixed list for now; every other strategy is another function that returns a Route."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nbllm.core.why import Why

NAMED, MODEL, LADDER = (Why(reason=reason) for reason in ("named by the caller", "the configured model", "the ladder"))


class Route(Struct, frozen=True, gc=False):
    """Model ids in the order in which they are to be tried, and why these."""

    models: tuple[str, ...]
    why: Why


def fixed(
    named: tuple[str, ...],
    *,
    routes: Mapping[str, tuple[str, ...]],
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


def _expanded(names: tuple[str, ...], routes: Mapping[str, tuple[str, ...]], why: Why) -> Route:
    if len(names) == 1 and names[0] not in routes:
        return Route(names, why)
    models: list[str] = []
    for name in names:
        models.extend(routes.get(name, (name,)))
    via = [name for name in names if name in routes]
    name = ", ".join(via)
    return Route(tuple(dict.fromkeys(models)), Why(route=name, reason=f"route {name}") if via else why)
