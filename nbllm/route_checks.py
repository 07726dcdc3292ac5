"""Routes that are set in code are checked at once, whom they name and their plans too: the person is there to correct them.

Routes of a settings file are not asked for their endpoints: one may come later (%serve). A call that needs it says so, and the
doctor does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbllm.errors import ConfigurationError
from nbllm.settings import Settings


def check_routes(settings: Settings, values: Mapping[str, Any], origin: str) -> None:
    """Raise ConfigurationError for a route, among values that were set just now, that names a model to which nobody answers, or a
    plan that cannot be read. origin: who set them.
    """
    given = values.get("routes")
    names = [
        *(given if isinstance(given, Mapping) else ()),
        *(n.removeprefix("routes.") for n in values if n.startswith("routes.")),
    ]
    problems = [(name, problem) for name in names for problem in problems_of(settings, name)]
    if problems:
        name, error = problems[0]
        raise ConfigurationError(f"{origin}: routes.{name}: {error.summary}", hint=error.hint) from None


def problems_of(settings: Settings, name: str) -> list[ConfigurationError]:
    """Return what keeps a route from working: models, helpers included, to which no endpoint or provider answers, and its plan."""
    import os

    from nbllm.pipeline.route_plans import read_plan
    from nbllm.providers.catalog import Catalog
    from nbllm.settings.strategies import helpers_of, models_of

    spec = settings.routes.get(name)
    if spec is None:
        return []
    catalog = Catalog(settings.endpoints, os.environ)
    found: list[ConfigurationError] = []
    for model in (*models_of(name, settings.routes), *helpers_of(spec)):
        try:
            catalog.rung(model)
        except ConfigurationError as error:
            found.append(error)
    plan = getattr(spec, "plan", None)
    if plan is not None:
        try:
            read_plan(plan, getattr(spec, "strong_share", None))
        except ConfigurationError as error:
            found.append(error)
    return found
