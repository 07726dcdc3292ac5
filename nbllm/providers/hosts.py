"""Providers that speak OpenAI's wire, and which host may see which key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from nbllm.errors import AuthenticationFailed, ConfigurationError, KeyNotAllowed
from nbllm.settings import Endpoint
from nbllm.settings.endpoint import ENV_NAME, header_variable


@dataclass(frozen=True, slots=True, kw_only=True)
class HostedProvider:
    """A provider on the internet. key_envs: names of environment variables, tried in order. hosts: where its key may go.

    A host that begins with a dot stands for all hosts below it.
    """

    name: str
    base_url: str
    key_envs: tuple[str, ...]
    hosts: tuple[str, ...]
    max_tokens_field: str = "max_tokens"


def _at(
    name: str, base_url: str, *key_envs: str, hosts: tuple[str, ...] = (), max_tokens_field: str = "max_tokens"
) -> HostedProvider:
    own = urlsplit(base_url).hostname or ""
    return HostedProvider(name=name, base_url=base_url, key_envs=key_envs, hosts=(own, *hosts), max_tokens_field=max_tokens_field)


PROVIDERS: Mapping[str, HostedProvider] = {
    provider.name: provider
    for provider in (
        # OpenAI's newer models refuse max_tokens, all of its chat models take max_completion_tokens.
        _at(
            "openai",
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
            hosts=("eu.api.openai.com", "us.api.openai.com"),
            max_tokens_field="max_completion_tokens",
        ),
        _at("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        _at("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
        _at("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        _at("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        _at("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY", "TOGETHERAI_API_KEY", hosts=("api.together.ai",)),
        _at("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
        _at("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"),
        _at("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY", "PPLX_API_KEY"),
        _at("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
        _at("moonshot", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", hosts=("api.moonshot.cn",)),
        _at("nvidia", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"),
        _at("deepinfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"),
        _at("sambanova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
        # Not its dedicated endpoints: those run whatever their owners put there.
        _at("huggingface", "https://router.huggingface.co/v1", "HF_TOKEN", "HUGGINGFACE_API_KEY"),
    )
}
"""By the first part of a model id, as in `groq/llama-3.3-70b-versatile`."""

_BEDROCK_REGIONS = (
    "us-east-1",
    "us-east-2",
    "us-west-2",
    "ca-central-1",
    "eu-central-1",
    "eu-west-1",
    "eu-west-3",
    "ap-northeast-1",
)

OTHER_KEYS: Mapping[str, tuple[str, ...]] = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "ANTHROPIC_AUTH_TOKEN": ("api.anthropic.com",),
    # Not .amazonaws.com, nor .aliyuncs.com and .googleapis.com below: customers' own servers and files live under those names.
    "AWS_BEARER_TOKEN_BEDROCK": tuple(f"bedrock-runtime.{region}.amazonaws.com" for region in _BEDROCK_REGIONS),
    "AWS_SECRET_ACCESS_KEY": (),
    "AWS_SESSION_TOKEN": (),
    "AZURE_API_KEY": (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com", ".inference.ai.azure.com"),
    "AZURE_OPENAI_API_KEY": (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
    "CO_API_KEY": ("api.cohere.com", "api.cohere.ai"),
    "COHERE_API_KEY": ("api.cohere.com", "api.cohere.ai"),
    "DASHSCOPE_API_KEY": ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GITHUB_TOKEN": ("models.github.ai", "models.inference.ai.azure.com"),
    "GH_TOKEN": ("models.github.ai",),
    "GOOGLE_API_KEY": ("generativelanguage.googleapis.com",),
    "REPLICATE_API_TOKEN": ("api.replicate.com",),
    "VOYAGE_API_KEY": ("api.voyageai.com",),
}
"""Keys of providers that are reached in another way. An endpoint may name them for these hosts and for no other."""

KEY_HOSTS = "NBLLM_KEY_HOSTS"
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:")

_HOSTS_OF_KEY: dict[str, tuple[str, ...]] = {
    **OTHER_KEYS,
    **{env: provider.hosts for provider in PROVIDERS.values() for env in provider.key_envs},
}


def endpoint_for(name: str) -> Endpoint | None:
    """Return the endpoint of a provider in the table, None for a name that is not in it."""
    provider = PROVIDERS.get(name)
    return Endpoint(base_url=provider.base_url) if provider else None


def has_key(name: str, environ: Mapping[str, str]) -> bool:
    """Whether a key of this provider is set. The key itself is not returned."""
    provider = PROVIDERS.get(name)
    return provider is not None and any(environ.get(env, "").strip() for env in provider.key_envs)


@lru_cache(maxsize=256)
def provider_of(base_url: str) -> HostedProvider | None:
    """Return the provider whose host serves this address, None for any other host."""
    host = host_of(base_url)
    return next((provider for provider in PROVIDERS.values() if _among(host, provider.hosts)), None)


@lru_cache(maxsize=256)
def host_of(base_url: str) -> str:
    """Return the host of an address in lower case, without port. Raises ConfigurationError for what is no http(s) address."""
    problem = ""
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        host, problem = None, str(exc)
    else:
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError(
                f"The base_url of {host} holds a user name or password. Nothing was sent.",
                hint="Put the secret into an environment variable and name it with api_key_env=.",
            )
        if parts.scheme not in {"http", "https"}:
            problem = "it must begin with http:// or https://"
        elif not host:
            problem = "it names no host"
        elif any(character.isspace() or ord(character) < 32 for character in base_url):
            problem = "it holds white space"
    if problem or not host:
        raise ConfigurationError(
            f"base_url {base_url!r} is no address: {problem}. Nothing was sent.",
            hint="Write it up to and including /v1, as in http://127.0.0.1:8000/v1.",
        )
    return host.rstrip(".")


def key_for(endpoint_name: str, endpoint: Endpoint, environ: Mapping[str, str]) -> str | None:
    """Return the key to send to this endpoint, None when it needs none.

    A literal `api_key` is the endpoint's own. The variable that `api_key_env` names is read, unless it is a provider's and the
    host is not, or a settings file names it for a host that NBLLM_KEY_HOSTS does not. Without either, a provider's own host gets
    the provider's key. A provider's key travels over https only.

    Raises KeyNotAllowed when the key would go to a foreign host, AuthenticationFailed when one is needed and none is set. In both
    cases nothing was sent.
    """
    host = host_of(endpoint.base_url)
    if endpoint.api_key is not None:
        return _clean(endpoint.api_key, f"api_key of the endpoint {endpoint_name!r}")
    if endpoint.api_key_env:
        _check_host(endpoint.api_key_env, endpoint_name, endpoint.base_url, host)
        _check_file(endpoint.api_key_env, endpoint_name, endpoint, host, environ)
        return _read((endpoint.api_key_env,), endpoint_name, host, environ)
    if _authorized_by_headers(endpoint):
        return None
    provider = provider_of(endpoint.base_url)
    if provider is None:
        return None
    _check_host(provider.key_envs[0], endpoint_name, endpoint.base_url, host)
    return _read(provider.key_envs, endpoint_name, host, environ)


def headers_for(endpoint_name: str, endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the endpoint's own headers with "$NAME" replaced by the variable's value, left out where it is unset or empty.

    Variables are bound to hosts as in key_for, whatever header they would travel in.
    Raises KeyNotAllowed; nothing was sent then.
    """
    headers: dict[str, str] = {}
    for name, value in (endpoint.headers or {}).items():
        variable = header_variable(value)
        if variable is None:
            headers[name] = value
            continue
        host = host_of(endpoint.base_url)
        _check_host(variable, endpoint_name, endpoint.base_url, host, within=f"the header {name}")
        _check_file(variable, endpoint_name, endpoint, host, environ)
        read = environ.get(variable, "").strip()
        if read:
            headers[name] = read
    return headers


def _check_host(env: str, endpoint_name: str, base_url: str, host: str, *, within: str = "api_key_env=") -> None:
    hosts = _HOSTS_OF_KEY.get(env.upper())
    if hosts is None:
        return
    if not _among(host, hosts):
        owner = f"belongs to {hosts[0].removeprefix('.')}" if hosts else "belongs to no endpoint of this kind"
        raise KeyNotAllowed(
            f"The key in {env} {owner}; the endpoint {endpoint_name!r} would have sent it to {host}. Nothing was sent.",
            hint=f"If {host} is a proxy of yours, keep its key in a variable of its own, such as "
            f"{_own_variable(endpoint_name)}, and name that one in {within}.",
        )
    if urlsplit(base_url).scheme != "https":
        raise KeyNotAllowed(
            f"The key in {env} would have gone to {host} unencrypted. Nothing was sent.", hint="Write https:// in base_url."
        )


def _check_file(env: str, endpoint_name: str, endpoint: Endpoint, host: str, environ: Mapping[str, str]) -> None:
    """Refuse a variable that a settings file names, unless its host is known for it, is this machine, or was allowed by the user.

    The file may be that of a cloned project, and could name any variable of this environment for any host.
    """
    if not endpoint.settings_file or env.upper() in _HOSTS_OF_KEY:
        return
    if not _is_this_machine(host) and not _among(host, _allowed_hosts(env, environ)):
        told = ", ".join(part for part in (environ.get(KEY_HOSTS, "").strip(" ,"), f"{env}@{host}") if part)
        raise KeyNotAllowed(
            f"{endpoint.settings_file} would have {env} sent to {host}, as the endpoint {endpoint_name!r}. A file may come from "
            "anybody, so it takes your word too. Nothing was sent.",
            hint=f"If {host} is to get it, say so outside of the file: {KEY_HOSTS}={told!r} in the environment (in a notebook: "
            f"import os; os.environ[{KEY_HOSTS!r}] = {told!r}).",
        )


def _is_this_machine(host: str) -> bool:
    """Whether the host is this machine whatever a name server says: not even names below .localhost are, everywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _allowed_hosts(env: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the hosts that the user allows for a variable: NBLLM_KEY_HOSTS holds NAME@host pairs, separated by commas."""
    found: list[str] = []
    for pair in filter(None, (part.strip() for part in environ.get(KEY_HOSTS, "").split(","))):
        name, _, host = (part.strip() for part in pair.partition("@"))
        if not ENV_NAME.match(name) or not host or not set(host) <= _HOST_CHARACTERS:
            raise ConfigurationError(
                f"{KEY_HOSTS} holds {pair!r:.60}, which is no NAME@host. Nothing was sent.",
                hint="Write the name of a variable and a host without scheme and port, as in LAB_KEY@models.example.org",
            )
        if name.upper() == env.upper():
            found.append(host.lower())
    return tuple(found)


def _read(names: tuple[str, ...], endpoint_name: str, host: str, environ: Mapping[str, str]) -> str:
    for name in names:
        value = environ.get(name, "").strip()
        if value:
            return _clean(value, f"environment variable {name}")
    raise AuthenticationFailed(
        f"{endpoint_name}: {host} needs a key and the environment variable {names[0]} is not set. Nothing was sent.",
        hint=f"Set {names[0]} (in a notebook: import os, getpass; os.environ[{names[0]!r}] = getpass.getpass()).",
    )


def _clean(key: str, where: str) -> str:
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise AuthenticationFailed(
            f"The {where} holds no key: it is empty, or has white space or characters that no header may hold. Nothing was sent.",
            hint="Copy the key again; it is one word of plain letters, digits and signs.",
        )
    return key


def _own_variable(endpoint_name: str) -> str:
    word = "".join(character if character.isalnum() else "_" for character in endpoint_name.upper()).strip("_")
    name = f"{word or 'PROXY'}_KEY"
    return name if name not in _HOSTS_OF_KEY else "MY_PROXY_KEY"


def _among(host: str, hosts: tuple[str, ...]) -> bool:
    return any(host == allowed or (allowed.startswith(".") and host.endswith(allowed)) for allowed in hosts)


def _authorized_by_headers(endpoint: Endpoint) -> bool:
    if not endpoint.headers:
        return False
    return any(name.lower() in {"authorization", "api-key", "x-api-key"} for name in endpoint.headers)
