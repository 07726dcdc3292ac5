"""Whether somebody answers to the models that a route names, asked where routes are set in code: the person is there to correct it.

Routes of a settings file are not asked: an endpoint may come later (%serve). A call that needs it says so, and the doctor does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from nbllm.errors import ConfigurationError, UnknownModel
from nbllm.providers.catalog import Catalog
from nbllm.settings import Settings
from nbllm.settings.strategies import helpers_of, models_of


def refuse_unknown_models(settings: Settings, routes: Iterable[str], origin: str) -> None:
    """Raise ConfigurationError for a route that names a model to which no endpoint or provider answers, helpers included."""
    catalog = Catalog(settings.endpoints, os.environ)
    for route in routes:
        spec = settings.routes.get(route)
        if spec is None:
            continue
        for model in (*models_of(route, settings.routes), *helpers_of(spec)):
            if model in settings.routes:
                continue
            try:
                catalog.rung(model)
            except UnknownModel as error:
                raise ConfigurationError(f"{origin}: routes.{route}: {error.summary}", hint=error.hint) from None
