"""Whether the names of models that are set can be meant: `endpoint/model`, or the name of a route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.errors import ConfigurationError, SettingsFileError
from nbllm.settings.suggest import nearest

_EXAMPLES = ("sim/small", "sim/large")


def refuse_strange_names(flat: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise ConfigurationError for a model, ladder or route that names what is neither a model id nor a route.

    flat: flat names and values (nbllm.settings.flat). origins: where each came from; a file's name and line are named. Whether an
    endpoint or provider of that name exists is not looked at here: only the catalog knows (the doctor asks it, and each call does).
    """
    routes = [name.removeprefix("routes.") for name, value in flat.items() if name.startswith("routes.") and value]
    for name, value in flat.items():
        if not value or not (name in {"model", "ladder"} or name.startswith("routes.")):
            continue
        in_route = name.startswith("routes.")  # whose own names are model ids only: a route is expanded once
        for model in (value,) if isinstance(value, str) else value:
            before, _, after = model.partition("/")
            if not (before.strip() and after.strip()) and (in_route or model not in routes):
                raise _strange(name, model, origins.get(name, ""), [] if in_route else routes)


def _strange(name: str, model: str, origin: str, routes: list[str]) -> ConfigurationError:
    near = nearest(model, (*routes, *_EXAMPLES))
    what = f"{name} names {model!r}, which is no model id" + ("" if name.startswith("routes.") else " and no route")
    form = "Write endpoint/model or provider/model, such as openai/gpt-4o-mini."
    hint = f"Did you mean {near}? {form}" if near else form
    file, _, line = origin.rpartition(":")
    if file and line.isdigit():
        return SettingsFileError(f"{what}.", path=file, line=int(line), hint=hint)
    return ConfigurationError(f"{origin}: {what}." if origin else f"{what}.", hint=hint)
