"""Which models /v1 serves: the app's own models and routes, and its flows as flow/<name>. Nothing else can be named there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nbllm.client import Client
from nbllm.service.problems import ServiceProblem
from nbllm.settings import Settings
from nbllm.settings.strategies import models_of

FLOW = "flow/"
ANY = "*"


class ModelNotServed(ServiceProblem):
    """A model that is none of the app's."""

    def __init__(self, name: str, *, hint: str = "") -> None:
        detail = f"{name!r:.120} is not served here. {hint or 'GET /v1/models lists what is.'}"
        super().__init__(404, "model-not-found", "There is no such model here.", detail, parameter="model")


class Menu:
    """What one client's settings name, as they are now. more: further models; "vllm/*" is all of an endpoint, "*" any at all."""

    def __init__(self, client: Client, flows: Iterable[str], more: Sequence[str] = ()) -> None:
        self._client = client
        self._flows = tuple(FLOW + name for name in flows)
        self._more = tuple(name for name in more if not name.endswith(ANY))
        self._beginnings = tuple(name.removesuffix(ANY) for name in more if name.endswith(ANY))
        self._of: Settings | None = None
        self._names: dict[str, str] = {}
        """Names -> who owns them, of the settings that were looked at last."""

    @property
    def is_open(self) -> bool:
        """Whether more may be named than is known."""
        return bool(self._beginnings)

    def check(self, name: str) -> None:
        """Refuse a model that is not served. Raises ModelNotServed."""
        if name not in self._own() and not (self._beginnings and name.startswith(self._beginnings) and not name.startswith(FLOW)):
            raise ModelNotServed(name)

    def rows(self) -> list[tuple[str, str]]:
        """Return all names that are known, each with its owner: an endpoint or provider, "route" or "flow"."""
        own = self._own()
        if not self._beginnings:
            return list(own.items())
        known = (row for row in self._client.models() if row.id.startswith(self._beginnings))
        return list((own | {row.id: row.endpoint for row in known if row.id not in own}).items())

    def _own(self) -> dict[str, str]:
        settings = self._client.settings
        if settings is not self._of:
            self._names, self._of = self._named_by(settings), settings
        return self._names

    def _named_by(self, settings: Settings) -> dict[str, str]:
        default = (settings.model,) if settings.model else ()
        models = [
            *default,
            *settings.ladder,
            *(model for name in settings.routes for model in models_of(name, settings.routes)),
            *self._more,
        ]
        names = {model: model.partition("/")[0] for model in models if "/" in model}
        return {**dict.fromkeys(settings.routes, "route"), **names, **dict.fromkeys(self._flows, "flow")}
