"""How LiteLLM's providers are reached: address, key and region variables, and where each key may go. No import of litellm.

Only providers whose address and key are the same for everybody have a row; for all others LiteLLM reads its own variables, and
nbllm passes what it knows. docs/providers.md says what follows from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LitellmHost:
    """One provider.

    api_base: where chats go, "" when LiteLLM has to build it (from a region, a project). embed_base: where embeddings go, if
    elsewhere. key_envs: variables that may hold its key, tried in order; () when it has credentials of another kind (AWS, Google),
    which LiteLLM finds. base_env: a variable that holds a user's own address (Azure).
    """

    api_base: str = ""
    embed_base: str | None = None
    key_envs: tuple[str, ...] = ()
    base_env: str | None = None


HOSTS: Mapping[str, LitellmHost] = {
    "anthropic": LitellmHost(api_base="https://api.anthropic.com", key_envs=("ANTHROPIC_API_KEY",)),
    "gemini": LitellmHost(
        api_base="https://generativelanguage.googleapis.com/v1beta", key_envs=("GEMINI_API_KEY", "GOOGLE_API_KEY")
    ),
    "cohere": LitellmHost(
        api_base="https://api.cohere.com/v2/chat",
        embed_base="https://api.cohere.com/v2/embed",
        key_envs=("COHERE_API_KEY", "CO_API_KEY"),
    ),
    "voyage": LitellmHost(api_base="https://api.voyageai.com/v1", key_envs=("VOYAGE_API_KEY",)),
    "azure": LitellmHost(key_envs=("AZURE_API_KEY",), base_env="AZURE_API_BASE"),
    "azure_ai": LitellmHost(key_envs=("AZURE_AI_API_KEY",), base_env="AZURE_AI_API_BASE"),
    "replicate": LitellmHost(key_envs=("REPLICATE_API_KEY", "REPLICATE_API_TOKEN")),
    "bedrock": LitellmHost(),
    "sagemaker": LitellmHost(),
    "vertex_ai": LitellmHost(),
    "watsonx": LitellmHost(),
}
"""By LiteLLM's name of the provider, the first part of a model id."""

OWN_CREDENTIALS = frozenset(
    {"bedrock", "bedrock_converse", "bedrock_mantle", "sagemaker", "sagemaker_chat", "vertex_ai", "oci", "sap"}
)
"""Providers that sign requests with an account's credentials instead of sending a key."""


def host_for(provider: str) -> LitellmHost:
    """Return how a provider is reached; for one without a row, a key in PROVIDER_API_KEY by LiteLLM's custom."""
    found = HOSTS.get(provider)
    if found is not None:
        return found
    return LitellmHost(key_envs=() if provider in OWN_CREDENTIALS else (f"{provider.upper().replace('-', '_')}_API_KEY",))


def base_url_for(provider: str, environ: Mapping[str, str]) -> str:
    """Return the address that is passed to LiteLLM, "" when it builds its own."""
    host = host_for(provider)
    return host.api_base or (environ.get(host.base_env, "").strip() if host.base_env else "")


def key_env(provider: str, environ: Mapping[str, str]) -> str | None:
    """Return the name of the variable that holds the provider's key: the first that is set, else the first; None without keys."""
    names = host_for(provider).key_envs
    return next((name for name in names if environ.get(name, "").strip()), names[0] if names else None)
