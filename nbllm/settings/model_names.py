"""Whether the names of models that are set can be meant: `endpoint/model`, or a route; and whether routes lead to models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nbllm.errors import ConfigurationError, SettingsFileError
from nbllm.settings.suggest import nearest

_EXAMPLES = ("sim/small", "sim/large")


def refuse_strange_names(flat: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a model, ladder or route that names what is neither a model id nor a route, and for a route that
    leads to itself.

    flat: flat names and values (nbllm.settings.flat). origins: where each came from; a file's name and line are named. Whether an
    endpoint or provider of that name exists is not looked at here: only the catalog knows (the doctor asks it, and each call does).
    """
    routes = {name.removeprefix("routes."): value for name, value in flat.items() if name.startswith("routes.") and value}
    for name, value in flat.items():
        if value and (name in {"model", "ladder"} or name.startswith("routes.")):
            for names in _lists(value):
                _check(name, names, routes, origins.get(name, ""))
    for name, value in routes.items():
        _refuse_cycle(name, (name,), routes, origins)
        if getattr(value, "accept", None) == "logprob":
            _refuse_without_logprobs(name, flat, origins)


def _lists(value: Any) -> Iterator[tuple[str, ...]]:
    """Yield the lists of names of a model, a ladder or a route; what helps to decide is a list of its own."""
    if isinstance(value, str):
        yield (value,)
    elif isinstance(value, tuple):
        yield value
    else:
        from nbllm.settings.strategies import helpers_of

        yield from value.choices()
        yield from ((model,) for model in helpers_of(value))


def _check(setting: str, names: tuple[str, ...], routes: Mapping[str, Any], origin: str) -> None:
    in_list = setting.startswith("routes.") and isinstance(routes.get(setting.removeprefix("routes.")), tuple)
    for model in names:
        if model in routes and not in_list:  # a list holds model ids only
            if len(names) > 1 and not isinstance(routes[model], tuple):
                what = f"{setting} names the route {model} among others, and that one chooses by itself"
                raise _refusal(what, origin, f"Name {model} alone; what comes after its models is said in it.")
            continue
        if in_list and model in routes:
            which = "itself" if setting == f"routes.{model}" else f"the route {model}"
            raise _refusal(f"{setting} names {which}, and a list holds model ids only", origin, "Name models there.")
        before, _, after = model.partition("/")
        if not (before.strip() and after.strip()):
            raise _strange(setting, model, origin, [] if in_list else list(routes))


def _refuse_cycle(name: str, way: tuple[str, ...], routes: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Follow the routes that a route names; one that is met again would never end."""
    from nbllm.settings.strategies import Cascade, Cheapest, Fastest, SpillOver, named

    spec = routes[name]
    if isinstance(spec, tuple):
        return
    for inner in dict.fromkeys(named(spec)):
        if inner not in routes:
            continue
        origin = origins.get(f"routes.{way[0]}", "")
        if inner in way:
            itself = "itself" if len(way) == 1 else f"itself by way of {' > '.join((*way[1:], inner))}"
            raise _refusal(f"routes.{way[0]} names {itself}, so it would never reach a model", origin, "Name a model there.")
        if isinstance(spec, Cascade | Cheapest | Fastest | SpillOver) and not isinstance(routes[inner], tuple):
            what = f"routes.{name} compares models, and {inner} is a route that chooses by itself"
            raise _refusal(what, origins.get(f"routes.{name}", ""), "Name models, or a route that is a list of them.")
        _refuse_cycle(inner, (*way, inner), routes, origins)


def _refuse_without_logprobs(name: str, flat: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Refuse a cascade by log probability over an endpoint of which it is said that it gives none."""
    from nbllm.settings.strategies import models_of

    routes = {n.removeprefix("routes."): v for n, v in flat.items() if n.startswith("routes.") and v}
    for model in models_of(name, routes)[:-1]:
        endpoint = flat.get(f"endpoints.{model.partition('/')[0]}")
        if endpoint is not None and endpoint.supports_logprobs is False:
            what = f"routes.{name} accepts by log probability, and the endpoint of {model} gives none (supports_logprobs = false)"
            raise _refusal(what, origins.get(f"routes.{name}", ""), 'Use accept = "verifier" or "valid", or another model.')


def _strange(name: str, model: str, origin: str, routes: list[str]) -> ConfigurationError:
    near = nearest(model, (*routes, *_EXAMPLES))
    what = f"{name} names {model!r}, which is no model id" + (" and no route" if routes or not name.startswith("routes.") else "")
    form = "Write endpoint/model or provider/model, such as openai/gpt-4o-mini."
    return _refusal(what, origin, f"Did you mean {near}? {form}" if near else form)


def _refusal(what: str, origin: str, hint: str) -> ConfigurationError:
    file, _, line = origin.rpartition(":")
    if file and line.isdigit():
        return SettingsFileError(f"{what}.", path=file, line=int(line), hint=hint)
    return ConfigurationError(f"{origin}: {what}." if origin else f"{what}.", hint=hint)
