"""Which models are to answer, and why. A fixed list for now; every other strategy is another function that returns a Route."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Route(Struct, frozen=True, gc=False):
    """Model ids in the order in which they are to be tried, and the reason, in words for people."""

    models: tuple[str, ...]
    reason: str


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
        return _expanded(named, routes, "named by the caller")
    if model:
        return _expanded((model,), routes, "the configured model")
    if ladder:
        return _expanded(ladder, routes, "the ladder")
    return found


def _expanded(names: tuple[str, ...], routes: Mapping[str, tuple[str, ...]], reason: str) -> Route:
    if len(names) == 1 and names[0] not in routes:
        return Route(names, reason)
    models: list[str] = []
    for name in names:
        models.extend(routes.get(name, (name,)))
    via = [name for name in names if name in routes]
    return Route(tuple(dict.fromkeys(models)), f"route {', '.join(via)}" if via else reason)
