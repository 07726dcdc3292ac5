"""settings.toml of an export: what the notebook's calls were made with, as far as the flow's calls need it, and no key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nbllm.errors import NbllmError
from nbllm.export import toml_text
from nbllm.export.asked import asked
from nbllm.export.refusals import Refusal
from nbllm.export.settings_routes import route_lines, with_inner_routes
from nbllm.providers.catalog import Catalog
from nbllm.providers.hosts import PROVIDERS
from nbllm.redaction import is_secret_name, redact
from nbllm.settings import Endpoint, Settings
from nbllm.settings.addresses import address_variable
from nbllm.settings.endpoint import FIELDS, header_variable
from nbllm.settings.semantic import FILES
from nbllm.settings.strategies import RouteSpec, helpers_of, named

_NOT_THE_APPS = {"home", "session", "recordings", "recordings_days", "recordings_mb", "discover"}
"""Settings of a person and a machine: a service has its own home, keeps no texts and looks for no models."""
_SAID = {
    "budget.session_usd": "a session is one process of the service: spent, every call is refused until it starts anew",
    "budget.request_usd": "at most, for each single call",
    "budget.day_usd": "at most, for each day (UTC)",
}
_HEAD = """\
# What the flow's calls are made with: the keys of nbllm.toml, and [service]. It holds names of environment variables, never keys.
# Written by nbllm export from {origin}; yours to change: a re-export keeps what you changed.
"""
_SERVICE = """\
[service]
# host = "127.0.0.1"          # who may reach it; the containers of this project listen on 0.0.0.0, behind keys
# port = {port}
# allowed_hosts = []          # names under which it is reached, besides loopback, such as "support.example.org"
# allowed_origins = []        # web pages that may call it from a browser
# flow_timeout_s = 300        # longest time of one run of the flow
# max_running = 64            # runs at once; max_waiting more wait, at most queue_wait_s
# log_prompts = false         # texts of people stay out of the logs
# [service.tiers.default]     # nbllm keys make . --tier NAME
# requests_per_minute = 600   # of one key
# day_usd = 10.00             # of one key; without it a day is not limited
"""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """settings.toml. keys: environment variable -> endpoint or provider that needs it. key_hosts: for NBLLM_KEY_HOSTS.

    files: what the settings name and the service needs, such as plans, by its path in the export. local: endpoints of this machine,
    which are elsewhere for who runs the service. models: every model id that the settings or the flow name. litellm: whether one
    of them is reached through LiteLLM.
    """

    text: str
    keys: Mapping[str, str] = field(default_factory=dict)
    key_hosts: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    litellm: bool = False
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def settings_file(
    settings: Settings, flows: str, *, used: Iterable[str] = (), others: bool = False, port: int = 8080
) -> SettingsFile:
    """Return the file for a flow's module.

    flows: its text; endpoints and routes that it cannot name are left out. used: models that answered recorded calls of the flow:
    where nothing else says which model answers, the first of them does. others: whether further modules travel, which may ask too.
    """
    return _Writer(settings, flows, tuple(used), others=others).file(port)


class _Writer:
    def __init__(self, settings: Settings, flows: str, used: tuple[str, ...], *, others: bool) -> None:
        self._settings = settings
        self._asked = asked(flows)
        self._asks = self._asked.calls or others
        self._used = used
        self.notes: list[str] = []
        self.refusals: list[Refusal] = []
        self.keys: dict[str, str] = {}
        self.key_hosts: list[str] = []
        self.moved: list[str] = []
        self.files: dict[str, bytes] = {}

    def file(self, port: int) -> SettingsFile:
        flat = self._settings.flat()
        defaults = Settings().flat()
        plain = {n: v for n, v in flat.items() if n in defaults and n not in _NOT_THE_APPS and v != defaults[n]}
        if not plain.get("model") and not plain.get("ladder") and self._asks and not self._asked.all_named:
            self._default_model(plain)
        routes = {
            n: v for n, v in self._settings.routes.items() if self._asked.hidden or n in self._asked.texts or n in _named(plain)
        }
        self._semantic(plain)
        routes = with_inner_routes(routes, self._settings.routes)
        models = self._models(plain, routes)
        endpoints = {
            n: e for n, e in self._settings.endpoints.items() if self._asked.hidden or any(m.startswith(f"{n}/") for m in models)
        }
        body = [
            _HEAD.format(origin="the notebook and the settings beside it"),
            *self._lines(plain, ""),
            *self._table("budget", plain),
            *self._named_budgets(),
            *self._table("semantic_cache", plain),
            *route_lines(routes, self._line, self._origin, self._taken, self.refusals),
            *(text for name, endpoint in sorted(endpoints.items()) for text in self._endpoint(name, endpoint)),
            "\n" + _SERVICE.format(port=port),
        ]
        litellm = self._look_at(models, endpoints)
        if self._settings.budgets.session_usd is not None:
            self.notes.append("The session's budget is one for each process of the service now; settings.toml says so.")
        return SettingsFile(
            "".join(body), dict(sorted(self.keys.items())), tuple(sorted(self.key_hosts)), tuple(self.moved), tuple(sorted(models)),
            litellm,
            tuple(self.notes), tuple(self.refusals), self.files,
        )  # fmt: skip

    # ------------------------------------------------------------------ files

    def _semantic(self, plain: dict[str, Any]) -> None:
        """Take along what the semantic cache needs: its plan, the guards' words."""
        embedder = plain.get("semantic_cache.embedder", "")
        if embedder.startswith("local:"):
            self.refusals.append(
                Refusal(kind="settings", reason=f"the semantic cache embeds with a folder of this machine ({embedder})",
                        todo="Serve the model (an endpoint with /v1/embeddings), or switch the semantic cache off")
            )  # fmt: skip
        for name in FILES:
            given = plain.get(f"semantic_cache.{name}")
            if given is not None:
                plain[f"semantic_cache.{name}"] = self._taken(Path(given), f"semantic_cache.{name}")

    def _taken(self, path: Path, what: str) -> str:
        """Take a file along and return its path in the export."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name).lstrip(".") or "plan.json"
        try:
            content = path.read_bytes()
        except OSError as error:
            self.refusals.append(Refusal(kind="settings", reason=f"{what} names {path}, which cannot be read: {error.strerror}"))
            return f"plans/{name}"
        inside = f"plans/{name}"
        if self.files.get(inside, content) != content:  # of the same name, from another folder
            inside = f"plans/{re.sub(r'[^A-Za-z0-9._-]', '_', what)}-{name}"
        self.files[inside] = content
        return inside

    # ------------------------------------------------------------------ models

    def _default_model(self, plain: dict[str, Any]) -> None:
        if self._used:
            plain["model"] = self._used[0]
            self.notes.append(f"No model is configured: settings.toml names {self._used[0]}, which answered the recorded calls.")
            return
        self.refusals.append(
            Refusal(kind="settings", reason="no model is configured, so the service would take whatever it finds where it runs",
                    todo="Name one: %llm_config model=..., model= of each call, or model in nbllm.toml")
        )  # fmt: skip

    def _models(self, plain: Mapping[str, Any], routes: Mapping[str, RouteSpec]) -> set[str]:
        """Return every model id that can be asked: of the settings, of routes, and texts of the flow that look like one."""
        known = {*self._settings.endpoints, "sim", *PROVIDERS, *Catalog({}, {}).names()}
        found = (
            self._asked.models(known) | _named(plain) | {m for spec in routes.values() for m in (*named(spec), *helpers_of(spec))}
        )
        if self._asked.hidden:  # what answered in the notebook is asked in the service, too
            found |= set(self._used)
            self.notes.append(
                "A call takes its model from what cannot be seen in the code. The service has keys and packages for models that "
                f"are texts, in settings or recorded ({', '.join(sorted(found)) or 'none'}); write others as texts, too."
            )
        return {m for m in found if m not in self._settings.routes}

    def _look_at(self, models: Iterable[str], endpoints: Mapping[str, Endpoint]) -> bool:
        """Note the keys that the models need; return whether LiteLLM reaches one of them."""
        catalog = Catalog(self._settings.endpoints, {})
        litellm = False
        for model in sorted(models):
            try:
                rung = catalog.rung(model)
            except NbllmError:
                continue  # a text that only looks like a model
            litellm |= rung.provider == "litellm"
            if rung.endpoint_name in endpoints or rung.provider == "simulated":
                continue
            hosted = PROVIDERS.get(rung.endpoint_name)
            env = hosted.key_envs[0] if hosted else rung.endpoint.api_key_env
            if env:
                self.keys[env] = rung.endpoint_name
        return litellm

    # ------------------------------------------------------------------ lines

    def _lines(self, plain: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for name, given in plain.items():
            if name.startswith(prefix) and "." not in name[len(prefix) :]:
                comments = [_SAID.get(name, ""), self._origin(name)]
                yield self._line(name, (name[len(prefix) :],), given, "; ".join(c for c in comments if c))

    def _line(self, name: str, path: tuple[str, ...], given: Any, comment: str) -> str:
        if given is None:
            return ""  # what was switched off is off without a line
        try:
            shown = toml_text.value(given)
        except ValueError as error:
            self.refusals.append(Refusal(kind="settings", reason=f"the setting {name} cannot be written: {error}"))
            return ""
        if redact(shown) != shown or redact(f"{path[-1]}={shown}") != f"{path[-1]}={shown}":
            self.refusals.append(
                Refusal(kind="literal key", reason=f"the setting {name} holds what looks like a key",
                        todo="Put the key into an environment variable and name that")
            )  # fmt: skip
            return ""
        return f"{toml_text.key(*path)} = {shown}" + (f"  # {comment}" if comment else "") + "\n"

    def _origin(self, name: str) -> str:
        origin = self._settings.origin(name)
        return "" if origin == "default" else re.sub(r"[^\x20-\x7e]", "?", redact(origin))[:80]

    def _table(self, table: str, plain: Mapping[str, Any]) -> Iterator[str]:
        lines = [line for line in self._lines(plain, f"{table}.") if line]
        if lines:
            yield f"\n[{table}]\n"
            yield from lines

    def _named_budgets(self) -> Iterator[str]:
        for kind, amounts in (("features", self._settings.budgets.features), ("users", self._settings.budgets.users)):
            if amounts:
                yield f"\n[budget.{kind}]\n"
                yield from (self._line(f"budget.{kind}.{n}", (n,), usd, "") for n, usd in sorted(amounts.items()))

    def _endpoint(self, name: str, endpoint: Endpoint) -> Iterator[str]:
        yield f"\n[{toml_text.key('endpoints', name)}]\n"
        values = {f: getattr(endpoint, f) for f in FIELDS if f not in {"api_key", "headers", "api_key_env"}}
        values = {f: v for f, v in values.items() if v is not None and not (f == "verify_tls" and v)}
        local = _is_this_machine(endpoint.base_url)
        started = self._settings.origin(f"endpoints.{name}") == "%serve"
        for key, given in values.items():
            said = f"of this machine; {address_variable(name)} says where else it is" if key == "base_url" and local else ""
            yield self._line(f"endpoints.{name}.{key}", (key,), given, said)
        if local:
            which = "was started by %serve, which ends with the notebook" if started else "is on this machine"
            self.moved.append(name)
            self.notes.append(
                f"Endpoint {name} ({endpoint.base_url}) {which}. Where the service runs, {address_variable(name)} or settings.toml "
                "says where it is."
            )
        env = endpoint.api_key_env
        if endpoint.api_key is not None:
            env = re.sub(r"\W", "_", name.upper(), flags=re.ASCII).lstrip("0123456789") + "_API_KEY"
            self.notes.append(f"The key of endpoint {name} was given in code. The service reads it from {env}.")
        if env:
            yield self._line(f"endpoints.{name}.api_key_env", ("api_key_env",), env, "")
            self._needs(env, name, endpoint)
        yield from self._headers(name, endpoint)

    def _headers(self, name: str, endpoint: Endpoint) -> Iterator[str]:
        kept = {}
        for header, text in (endpoint.headers or {}).items():
            variable = header_variable(text)
            if variable is not None:
                self._needs(variable, name, endpoint)
            elif is_secret_name(header) or redact(text) != text:
                self.refusals.append(
                    Refusal(kind="literal key", reason=f"the header {header} of endpoint {name} holds a secret",
                            todo='Put it into an environment variable and write headers={..: "$NAME_OF_THE_VARIABLE"}')
                )  # fmt: skip
                continue
            kept[header] = text
        if kept:
            yield self._line(f"endpoints.{name}.headers", ("headers",), kept, "")

    def _needs(self, env: str, name: str, endpoint: Endpoint) -> None:
        self.keys[env] = name
        host = urlsplit(endpoint.base_url).hostname or ""
        if host and not _is_this_machine(endpoint.base_url):
            self.key_hosts.append(f"{env}@{host}")


def _named(plain: Mapping[str, Any]) -> set[str]:
    """Return the models and routes that the settings name for calls that name none."""
    helpers = (plain.get(f"semantic_cache.{name}") for name in ("embedder", "judge"))
    helping = {model for model in helpers if model and "/" in model and not model.startswith("local:")}
    return helping | {m for m in (plain.get("model"), *plain.get("ladder", ())) if m}


def _is_this_machine(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
