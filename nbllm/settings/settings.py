"""Settings: every value, and where it came from.

Resolution, later wins: defaults < nbllm.toml or [tool.nbllm] in pyproject.toml < NBLLM_* < %llm_config < Client(...).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nbllm.errors import ConfigurationError
from nbllm.settings.budgets import BudgetSettings
from nbllm.settings.endpoint import Endpoint
from nbllm.settings.flat import flat_values
from nbllm.settings.model_names import refuse_strange_names
from nbllm.settings.option import BadValue
from nbllm.settings.semantic import FIELDS, SemanticSettings
from nbllm.settings.tables import CALL_OPTIONS, SETTABLE, SETTINGS, check_call_options

if TYPE_CHECKING:
    from nbllm.settings.strategies import RouteSpec


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting: its value as text with secrets masked, where it came from, and what it is for."""

    name: str
    value: str
    origin: str
    help: str


def default_home() -> Path:
    """Return the folder for what lasts when nothing else is said: nbllm in the user's data folder of this system."""
    import platformdirs

    return Path(platformdirs.user_data_dir("nbllm", appauthor=False))


def _call_defaults() -> dict[str, Any]:
    return {
        name: dict(o.default) if o.kind == "mapping" and o.default is not None else o.default for name, o in CALL_OPTIONS.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every value that a client uses. Settings() holds the defaults, Settings.load() what files and variables say.

    home: folder of what lasts. ladder: model ids in order. routes: name -> model ids, or a strategy (docs/routes.md). call:
    defaults of the options of a call (CALL_OPTIONS). origins: flat name -> where the value came from, for those that are no
    defaults. notes: what a person should know about how the values were found. Units are in the names.
    """

    home: Path = field(default_factory=default_home)
    session: str | None = None
    model: str | None = None
    ladder: tuple[str, ...] = ()
    discover: bool = True
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict, hash=False)
    routes: Mapping[str, RouteSpec] = field(default_factory=dict, hash=False)
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    semantic_cache: SemanticSettings = field(default_factory=SemanticSettings)
    cache_size_mb: float = 1024
    cache_max_age_days: float = 90
    recordings: bool = False
    recordings_days: float = 30
    recordings_mb: float = 500
    retry_budget_share: float = 0.2
    retry_budget_floor: int = 3
    call: Mapping[str, Any] = field(default_factory=_call_defaults, hash=False)
    origins: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def load(cls, *, start: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Read nbllm.toml or [tool.nbllm], looked for from `start` (the working directory) upwards, and NBLLM_* from `environ`.

        Raises SettingsFileError (file and line) for a bad file, ConfigurationError for a bad variable.
        """
        from nbllm.settings.load import load

        return load(start, environ)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], origins: Mapping[str, str], notes: tuple[str, ...] = ()) -> Self:
        """Build settings from flat names with checked values (see nbllm.settings.flat); what is missing has its default."""
        given = dict(values)
        call = _call_defaults() | {n: given.pop(n) for n in CALL_OPTIONS if n in given and n not in SETTINGS}
        tables: dict[str, dict[str, Any]] = {"endpoints.": {}, "routes.": {}, "budget.features.": {}, "budget.users.": {}}
        for prefix, table in tables.items():
            for name in [n for n in given if n.startswith(prefix)]:
                value = given.pop(name)
                if value is not None:
                    table[name[len(prefix) :]] = value
        budget = {n[7:]: given.pop(n) for n in list(given) if n.startswith("budget.")}
        semantic = {n.partition(".")[2]: given.pop(n) for n in list(given) if n.startswith("semantic_cache.")}
        given["home"] = default_home() if given.get("home") is None else Path(given["home"])
        return cls(
            **given,
            endpoints=tables["endpoints."],
            routes=tables["routes."],
            budgets=BudgetSettings(features=tables["budget.features."], users=tables["budget.users."], **budget),
            semantic_cache=SemanticSettings(**semantic),
            call=call,
            origins=dict(origins),
            notes=notes,
        )

    @property
    def ttl_s(self) -> float | None:
        """How long a stored answer is fresh by default, in seconds; None: until its maximum age."""
        ttl: float | None = self.call["ttl_s"]
        return ttl

    def origin(self, name: str) -> str:
        """Return where the value of a flat name came from: "default", "nbllm.toml:12", "NBLLM_MODEL", "%llm_config" ..."""
        return self.origins.get(name, "default")

    def call_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return every option of one call: what is given, checked, else the settings' value. Raises InvalidRequest."""
        return {**self.call, **check_call_options(given)}

    def flat(self) -> dict[str, Any]:
        """Return flat names and values: every setting, every endpoint, route and budget by name."""
        values: dict[str, Any] = {n: getattr(self, n) for n in SETTINGS if "." not in n}
        budgets = self.budgets
        values |= {n: getattr(budgets, n[7:]) for n in SETTINGS if n.startswith("budget.")}
        values |= {f"semantic_cache.{n}": getattr(self.semantic_cache, n) for n in FIELDS}
        values |= {f"budget.features.{k}": v for k, v in budgets.features.items()}
        values |= {f"budget.users.{k}": v for k, v in budgets.users.items()}
        values |= {f"endpoints.{k}": v for k, v in self.endpoints.items()}
        values |= {f"routes.{k}": v for k, v in self.routes.items()}
        return values | {n: self.call[n] for n in SETTABLE if n not in SETTINGS}

    def replace_values(self, origin: str, /, **values: Any) -> Settings:
        """Return settings with some values replaced; `origin` ("%llm_config", "Client(...)") says who did it.

        Names are flat names (pass those with a dot as **{...}); budget_session_usd is understood too. Text is parsed, so "5.00"
        and "80%" will do. endpoints={...} adds to and replaces single endpoints; an endpoint, route or named budget of None is
        removed. Raises ConfigurationError.
        """
        flat, origins = self.flat(), dict(self.origins)
        for given, value in values.items():
            try:
                for name, checked in flat_values(given, _home(value) if given == "home" else value, as_text=True):
                    flat[name] = checked
                    origins[name] = origin
            except BadValue as error:
                where = ".".join(dict.fromkeys((given, *error.path[:-1])))
                raise ConfigurationError(f"{origin}: {error.at(where)}", hint=error.hint) from None
        refuse_strange_names(flat, origins)
        return Settings.from_flat(flat, origins, self.notes)

    def with_values(self, origin: str, values: Mapping[str, Any]) -> Settings:
        """Do as replace_values; a ladder that is set also takes the place of a default model that was set before it."""
        if values.get("ladder") and "model" not in values and self.model is not None:
            values = {**values, "model": None}
        return self.replace_values(origin, **values)

    def explain(self) -> list[Explained]:
        """Return every setting with its value as text (secrets masked), its origin and its help, in a fixed order."""
        from nbllm.settings.explain import explain

        return explain(self)


def _home(value: Any) -> Any:
    """Return a home from code as text, absolute, with ~ expanded; None stays None (the default folder)."""
    if value is None or not isinstance(value, str | Path):
        return value
    if "\0" in str(value):
        raise ConfigurationError(f"home {str(value)!r} holds a NUL character, which no path can.", hint="Name a folder.")
    return str(Path(value).expanduser().absolute())
