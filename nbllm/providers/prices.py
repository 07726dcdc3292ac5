"""Prices and limits of known models, read from the JSON file inside the installed litellm package. litellm is not imported.

The file (about 4,200 models, 3 MB) is parsed on the first question, in about 40 ms, and kept in a compact form. Nothing here
goes to the network. A model that is not in the file, or that has no price there, is unknown (None), never free: zeros in that
file mostly mean that nobody filled them in, so they count only for servers on one's own machine.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from nbllm.core.pricing import Price, Tier

PRICE_FILE = "model_prices_and_context_window_backup.json"
PROVIDER_FILE = "provider_endpoints_support_backup.json"
ANSWERING_MODES = frozenset({"chat", "completion", "responses", "embedding"})
FREE_SERVERS = frozenset({"ollama", "ollama_chat", "lemonade", "llamafile", "lm_studio"})
LITELLM_NAMES = {
    "together": "together_ai",
    "fireworks": "fireworks_ai",
    "nvidia": "nvidia_nim",
    "google": "gemini",
    "ai_gateway": "vercel_ai_gateway",
}
"""Names of providers that differ between nbllm's table of hosts and LiteLLM's."""

_TIER_MARK = "input_cost_per_token_above_"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model. None: unknown. `mode`: chat, completion, responses or embedding."""

    mode: str
    price: Price | None
    context_tokens: int | None
    max_output_tokens: int | None


UNKNOWN = ModelFacts("chat", None, None, None)


def facts_of(provider: str, model: str) -> ModelFacts:
    """Return what is known of a provider's model, both as users name them ("openai", "gpt-4o-mini"); UNKNOWN when nothing is."""
    return _facts(LITELLM_NAMES.get(provider, provider), model)


def models_of(provider: str) -> list[str]:
    """Return the provider's models that answer text or embed it, as the provider names them, sorted."""
    wanted = LITELLM_NAMES.get(provider, provider)
    prefix = f"{wanted}/"
    return sorted({key.removeprefix(prefix) for key, entry in _entries().items() if _belongs(entry["litellm_provider"], wanted)})


@lru_cache(maxsize=1)
def provider_names() -> frozenset[str]:
    """Return LiteLLM's names of providers that serve chat or embeddings, read from its files."""
    names = {_family(entry["litellm_provider"]) for entry in _entries().values()}
    for name, row in _load(PROVIDER_FILE).get("providers", {}).items():
        endpoints = row.get("endpoints", {}) if isinstance(row, dict) else {}
        if endpoints.get("chat_completions") or endpoints.get("embeddings"):
            names.add(name)
    return frozenset(name for name in names if "/" not in name and name not in {"custom", "auto_router"})


@lru_cache(maxsize=1024)
def _facts(provider: str, model: str) -> ModelFacts:
    entries = _entries()
    for key in (f"{provider}/{model}", model):
        entry = entries.get(key)
        if entry is not None and _belongs(entry["litellm_provider"], provider):
            return ModelFacts(
                mode=entry["mode"],
                price=_price(entry, free=provider in FREE_SERVERS),
                context_tokens=_count(entry.get("max_input_tokens") or entry.get("max_tokens")),
                max_output_tokens=_count(entry.get("max_output_tokens") or entry.get("max_tokens")),
            )
    return UNKNOWN


def _belongs(listed: str, provider: str) -> bool:
    """Whether the file's provider (`vertex_ai-anthropic_models`, `cohere_chat`, `bedrock_converse`) is the one asked for."""
    if listed == provider or listed.startswith(f"{provider}-"):
        return True
    return listed in {f"{provider}_chat", f"{provider}_converse", f"{provider}_text", f"text-completion-{provider}"}


def _family(listed: str) -> str:
    """Return the name that users write for a provider that the file splits up (`vertex_ai-anthropic_models` is `vertex_ai`)."""
    return next((name for name in ("vertex_ai", "fireworks_ai", "bedrock") if listed.startswith((f"{name}-", f"{name}_"))), listed)


def _price(entry: Mapping[str, Any], *, free: bool) -> Price | None:
    into, out = _usd_per_mtok(entry.get("input_cost_per_token")), _usd_per_mtok(entry.get("output_cost_per_token"))
    if out is None and entry["mode"] == "embedding":
        out = Decimal(0)
    if into is None or out is None or (not into and not out and not free):
        return None
    return Price(into, out, _usd_per_mtok(entry.get("cache_read_input_token_cost")), _tiers(entry, into, out))


def _tiers(entry: Mapping[str, Any], into: Decimal, out: Decimal) -> tuple[Tier, ...]:
    tiers = []
    for key in entry:
        line = key.removeprefix(_TIER_MARK).removesuffix("k_tokens")
        if key.startswith(_TIER_MARK) and line.isdigit():
            tiers.append(
                Tier(
                    int(line) * 1000,
                    _usd_per_mtok(entry[key]) or into,
                    _usd_per_mtok(entry.get(f"output_cost_per_token_above_{line}k_tokens")) or out,
                    _usd_per_mtok(entry.get(f"cache_read_input_token_cost_above_{line}k_tokens")),
                )
            )
    return tuple(sorted(tiers, key=lambda tier: tier.above_input_tokens))


def _usd_per_mtok(usd_per_token: object) -> Decimal | None:
    """Return a million times the number as it is written (1.5e-07 is 0.15), without the float's error."""
    if isinstance(usd_per_token, bool) or not isinstance(usd_per_token, int | float) or usd_per_token < 0:
        return None
    return (Decimal(repr(usd_per_token)) * 1_000_000).normalize() + 0


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


@lru_cache(maxsize=1)
def _entries() -> dict[str, dict[str, Any]]:
    """Return the file's answering models, each with the few fields that are used here."""
    kept: dict[str, dict[str, Any]] = {}
    for key, entry in _load(PRICE_FILE).items():
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_provider"), str):
            continue
        if entry.get("mode") in ANSWERING_MODES and key != "sample_spec":
            kept[key] = {field: value for field, value in entry.items() if _used(field)}
    return kept


def _used(field: str) -> bool:
    return field in {
        "litellm_provider",
        "mode",
        "max_tokens",
        "max_input_tokens",
        "max_output_tokens",
        "input_cost_per_token",
        "output_cost_per_token",
        "cache_read_input_token_cost",
    } or (field.endswith("k_tokens") and field.partition("_above_")[0].endswith(("_per_token", "_token_cost")))


def _load(name: str) -> dict[str, Any]:
    """Return a JSON file of the installed litellm package; empty when there is none or it cannot be read (prices are unknown)."""
    folder = litellm_folder()
    if folder is None:
        return {}
    try:
        loaded = json.loads((folder / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def litellm_folder() -> Path | None:
    """Return where litellm is installed, without importing it; None when it is not."""
    spec = importlib.util.find_spec("litellm")  # a top-level package: nothing of it is executed
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
