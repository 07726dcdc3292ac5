"""From a model id to a rung: which endpoint, which way, at what price. No network, and no import of litellm or aiohttp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlsplit

from nbllm.core.fingerprint import canonical_json
from nbllm.core.messages import Rung
from nbllm.core.pricing import Price
from nbllm.errors import ConfigurationError, UnknownModel
from nbllm.providers import hosts
from nbllm.providers.litellm_hosts import HOSTS, base_url_for, host_for, key_env
from nbllm.providers.prices import ModelFacts, facts_of, models_of, provider_names
from nbllm.providers.sim_options import MODELS, parse
from nbllm.providers.simulated import IDENTITY
from nbllm.redaction import is_secret_name, redact
from nbllm.settings import Endpoint
from nbllm.settings.endpoint import header_variable
from nbllm.settings.suggest import did_you_mean, nearest

SIMULATED = "sim"
SERVERS = frozenset({"vllm", "llama", "sglang", "sim-server"})
"""Names that servers on this machine get as endpoints (nbllm.engines). No provider on the internet has them; LiteLLM's "vllm" would
load a model into this very process."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model as tables and completion show it. Prices are USD per million tokens; None is unknown.

    key: names of the environment variables that may hold the key, () when none is needed; key_set: whether one is set (None: no
    key is needed, or LiteLLM looks for credentials of its own). The key itself is never here.
    """

    id: str
    endpoint: str
    provider: Literal["openai_compatible", "litellm", "simulated"]
    price: Price | None
    context_tokens: int | None
    max_output_tokens: int | None
    key: tuple[str, ...]
    key_set: bool | None
    simulated: bool


class Catalog:
    """Everything that a model id can name: endpoints of the settings, `sim`, providers on OpenAI's wire, LiteLLM's providers.

    environ: where keys are looked for (by name only) and addresses that are set there. Made anew when settings change.
    """

    def __init__(self, settings_endpoints: Mapping[str, Endpoint], environ: Mapping[str, str]) -> None:
        self._endpoints = dict(settings_endpoints)
        self._environ = environ
        self._rungs: dict[str, Rung] = {}

    def rung(self, model_id: str) -> Rung:
        """Return the rung of `<endpoint or provider>/<model>`. Raises UnknownModel with what there is; a repeat is one lookup."""
        found = self._rungs.get(model_id)
        if found is None:
            found = self._rungs[model_id] = self._make(model_id)
        return found

    def models(self, endpoint: str | None = None) -> list[ModelRow]:
        """Return the models that can be named: sim's, then those of endpoints and of providers whose key is set, by the price list.

        endpoint: only those of one endpoint or provider, whether its key is set or not. A server's own models are not in here:
        only the server knows them.
        """
        names = [endpoint] if endpoint is not None else [SIMULATED, *self._endpoints, *self.usable_providers()]
        return [row for name in dict.fromkeys(names) for row in self._rows(name)]

    def names(self) -> list[str]:
        """Return everything that may stand before the slash: endpoints, sim, providers."""
        return list(dict.fromkeys([*self._endpoints, SIMULATED, *hosts.PROVIDERS, *sorted(provider_names() - SERVERS)]))

    def usable_providers(self) -> list[str]:
        """Return the providers whose key is set."""
        rest = (name for name in HOSTS if name not in hosts.PROVIDERS and self._key_set(host_for(name).key_envs))
        return [*(name for name in hosts.PROVIDERS if hosts.has_key(name, self._environ)), *rest]

    # ------------------------------------------------------------------ one rung

    def _make(self, model_id: str) -> Rung:
        name, slash, model = model_id.strip().partition("/")
        if not slash or not name or not model or model_id != model_id.strip():
            raise self._no_such_form(model_id)
        if name in self._endpoints:
            return self._on_wire(model_id, name, model, self._endpoints[name])
        if name == SIMULATED:
            return _simulated(model_id, model)
        hosted = hosts.endpoint_for(name)
        if hosted is not None:
            return self._on_wire(model_id, name, model, hosted)
        if name in SERVERS:
            raise _no_server(model_id, name)
        if name in provider_names():
            return self._by_litellm(model_id, name, model)
        known = self.names()
        raise UnknownModel(
            f"{model_id!r}: there is no endpoint or provider {name!r}.",
            hint=f"Did you mean {nearest(name, known)}/{model}?" if nearest(name, known) else self._what_there_is(),
        )

    def _on_wire(self, model_id: str, name: str, model: str, endpoint: Endpoint) -> Rung:
        provider = hosts.provider_of(endpoint.base_url)
        facts = facts_of(provider.name, model) if provider else ModelFacts("chat", None, None, None)
        return Rung(
            id=model_id,
            model=model,
            endpoint_name=name,
            endpoint=endpoint,
            provider="openai_compatible",
            identity=endpoint.identity or _identity(endpoint),
            price=_stated(endpoint) or facts.price,
            context_tokens=endpoint.context_tokens or facts.context_tokens,
            max_output_tokens=endpoint.max_output_tokens or facts.max_output_tokens,
        )

    def _by_litellm(self, model_id: str, name: str, model: str) -> Rung:
        base_url, facts = base_url_for(name, self._environ), facts_of(name, model)
        return Rung(
            id=model_id,
            model=model,
            endpoint_name=name,
            endpoint=Endpoint(base_url=base_url, api_key_env=key_env(name, self._environ)),
            provider="litellm",
            identity=f"litellm:{name}:{normalised(base_url)}" if base_url else f"litellm:{name}",
            price=facts.price,
            context_tokens=facts.context_tokens,
            max_output_tokens=facts.max_output_tokens,
        )

    def _no_such_form(self, model_id: str) -> UnknownModel:
        guesses = [f"{name}/{model_id}" for name in hosts.PROVIDERS if facts_of(name, model_id).price]
        guesses += [f"{name}/{model_id}" for name in ("anthropic", "gemini", "cohere") if facts_of(name, model_id).price]
        said = f"Did you mean {guesses[0]}?" if guesses else self._what_there_is()
        return UnknownModel(f"{model_id!r} is no model id: it is written <endpoint or provider>/<model>.", hint=said)

    def _what_there_is(self) -> str:
        own = f"Endpoints of your settings: {', '.join(self._endpoints)}. " if self._endpoints else ""
        keyed = self.usable_providers()
        ready = f"Providers whose key is set: {', '.join(keyed)}. " if keyed else ""
        return f"{own}{ready}Always there: {' and '.join(f'sim/{name}' for name in MODELS)} (simulated). All: %llm_models."

    # ------------------------------------------------------------------ tables

    def _rows(self, name: str) -> list[ModelRow]:
        if name in self._endpoints:
            return self._endpoint_rows(name)
        if name == SIMULATED:
            return [self._row(self.rung(f"{SIMULATED}/{model}"), (), None) for model in MODELS]
        if name in hosts.PROVIDERS:
            envs = hosts.PROVIDERS[name].key_envs
            return [self._row(self.rung(f"{name}/{model}"), envs, self._key_set(envs)) for model in models_of(name)]
        if name in SERVERS:
            raise _no_server(f"{name}/...", name)
        if name in provider_names():
            envs = host_for(name).key_envs
            return [
                self._row(self.rung(f"{name}/{model}"), envs, self._key_set(envs) if envs else None) for model in models_of(name)
            ]
        raise UnknownModel(f"There is no endpoint or provider {name!r}.", hint=did_you_mean(name, self.names()))

    def _endpoint_rows(self, name: str) -> list[ModelRow]:
        endpoint = self._endpoints[name]
        provider = hosts.provider_of(endpoint.base_url)
        envs = (endpoint.api_key_env,) if endpoint.api_key_env else provider.key_envs if provider else ()
        key_set = True if endpoint.api_key is not None else self._key_set(envs) if envs else None
        return [self._row(self.rung(f"{name}/{model}"), envs, key_set) for model in (models_of(provider.name) if provider else ())]

    def _row(self, rung: Rung, envs: tuple[str, ...], key_set: bool | None) -> ModelRow:
        return ModelRow(
            id=rung.id,
            endpoint=rung.endpoint_name,
            provider=rung.provider,
            price=rung.price,
            context_tokens=rung.context_tokens,
            max_output_tokens=rung.max_output_tokens,
            key=envs,
            key_set=key_set,
            simulated=rung.simulated,
        )

    def _key_set(self, envs: tuple[str, ...]) -> bool:
        return any(self._environ.get(env, "").strip() for env in envs)


def _no_server(model_id: str, name: str) -> UnknownModel:
    return UnknownModel(
        f"{model_id!r}: no server is known here as {name!r}.",
        hint=f"If one runs, say where: base_url in [endpoints.{name}] of nbllm.toml, Endpoint(base_url=...) in code, or, in a "
        f"notebook, %serve attach URL --name {name}.",
    )


def _simulated(model_id: str, model: str) -> Rung:
    made = parse(model).model
    return Rung(
        id=model_id,
        model=model,
        endpoint_name=SIMULATED,
        endpoint=Endpoint(),
        provider="simulated",
        identity=IDENTITY,
        price=made.price,
        context_tokens=made.context_tokens,
        max_output_tokens=made.max_output_tokens,
    )


def _stated(endpoint: Endpoint) -> Price | None:
    """Return the price that an endpoint states; one that states only half of it states none."""
    into, out, cached = endpoint.input_usd_per_mtok, endpoint.output_usd_per_mtok, endpoint.cached_input_usd_per_mtok
    if into is None or out is None:
        return None
    return Price(_decimal(into), _decimal(out), None if cached is None else _decimal(cached))


def _decimal(value: Decimal | float) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _identity(endpoint: Endpoint) -> str:
    """Return what stands for an endpoint in cache keys: its address, and what else decides who answers and what he is asked.

    Headers route (a gateway's provider, config or tenant), all but those that hold a secret or name a variable.
    """
    said: dict[str, Any] = {}
    for name, value in (endpoint.headers or {}).items():
        secret = is_secret_name(name) or "auth" in name.lower() or header_variable(value) or redact(value) != value
        if not secret:
            said.setdefault("headers", {})[name.lower()] = value
    if endpoint.json_mode is not None:
        said["json_mode"] = endpoint.json_mode
    address = normalised(endpoint.base_url)
    return f"{address}#{canonical_json(said)}" if said else address  # no address has a # of its own


def normalised(base_url: str) -> str:
    """Return an address as it stands for an endpoint in cache keys: scheme and host in lower case, no default port, no slash at
    the end; path and query as they are. Raises ConfigurationError for what is no http(s) address.
    """
    host = hosts.host_of(base_url)
    parts = urlsplit(base_url)
    if parts.fragment:
        raise ConfigurationError(f"base_url {base_url!r} has a fragment (#...), which is never sent.", hint="Leave it out.")
    port = "" if parts.port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    shown = f"[{host}]" if ":" in host else host
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{shown}{port}{parts.path.rstrip('/')}{query}"
