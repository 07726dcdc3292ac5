"""List prices, from the file inside litellm, without importing it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm.core.pricing import Price, Tier
from nbllm.providers import prices
from nbllm.providers.discovery import DEFAULTS
from nbllm.providers.prices import facts_of, models_of, provider_names

FILE = {
    "sample_spec": {"litellm_provider": "one of ...", "mode": "chat", "max_tokens": "text"},
    "gpt-x": {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "max_input_tokens": 128000,
        "max_output_tokens": 16384,
    },
    "gemini/long": {
        "litellm_provider": "gemini",
        "mode": "chat",
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    },
    "vec": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08},
    "ollama/here": {"litellm_provider": "ollama", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0.0},
    "zero": {"litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0},
    "half": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
    "odd": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": "1e-6", "output_cost_per_token": True},
    "command": {"litellm_provider": "cohere_chat", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06},
    "claude": {
        "litellm_provider": "vertex_ai-anthropic_models",
        "mode": "chat",
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1e-05,
    },
    "picture": {
        "litellm_provider": "openai",
        "mode": "image_generation",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
    },
    "broken": "no object",
}


@pytest.fixture
def price_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A litellm folder of our own; the caches are emptied before and after."""
    (tmp_path / prices.PRICE_FILE).write_text(json.dumps(FILE))
    caches = (prices._entries, prices._facts, prices.provider_names)
    monkeypatch.setattr(prices, "litellm_folder", lambda: tmp_path)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("price_file")
def test_prices_are_exact() -> None:
    """1.5e-07 a token is 0.15 a million, to the digit; windows come along."""
    facts = facts_of("openai", "gpt-x")
    assert facts.price == Price(Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))
    assert (facts.context_tokens, facts.max_output_tokens) == (128_000, 16_384)


@pytest.mark.usefixtures("price_file")
def test_long_context_prices_are_kept() -> None:
    """What costs more above 200,000 tokens has a tier."""
    price = facts_of("gemini", "long").price
    assert price is not None
    assert price.tiers == (Tier(200_000, Decimal("2.5"), Decimal(15)),)


@pytest.mark.usefixtures("price_file")
@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("gemini", "zero"),
        ("openai", "half"),
        ("openai", "odd"),
        ("openai", "nothing"),
        ("groq", "gpt-x"),
        ("openai", "picture"),
        ("openai", "broken"),
    ],
)
def test_unknown_is_none(provider: str, model: str) -> None:
    """Zeros, halves, nonsense, models of others and of other kinds have no price; none of them is free."""
    assert facts_of(provider, model).price is None


@pytest.mark.usefixtures("price_file")
def test_only_servers_of_ones_own_are_free() -> None:
    """A local Ollama model costs $0; an embedding has no output to pay."""
    assert facts_of("ollama", "here").price == Price(Decimal(0), Decimal(0))
    assert facts_of("openai", "vec").price == Price(Decimal("0.02"), Decimal(0))


@pytest.mark.usefixtures("price_file")
def test_families_of_providers() -> None:
    """The file splits some providers up; users name the whole."""
    assert facts_of("cohere", "command").price
    assert facts_of("vertex_ai", "claude").price
    assert "vertex_ai" in provider_names()
    assert models_of("openai") == ["gpt-x", "half", "odd", "vec"]


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00"])
def test_a_damaged_file_prices_nothing(price_file: Path, content: str) -> None:
    """Pricing never fails a call: without a readable file everything is unknown."""
    (price_file / prices.PRICE_FILE).write_text(content)
    prices._entries.cache_clear()
    assert facts_of("openai", "gpt-x").price is None
    (price_file / prices.PRICE_FILE).unlink()
    prices._entries.cache_clear()
    assert models_of("openai") == []


def test_the_installed_file() -> None:
    """The real file knows thousands of models and the providers that people use, under nbllm's names too."""
    assert len(prices._entries()) > 2_000
    assert {"anthropic", "bedrock", "vertex_ai", "gemini", "azure", "cohere", "openrouter", "huggingface"} <= provider_names()
    assert facts_of("openai", "gpt-4o-mini").price == Price(Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))
    assert models_of("together")
    assert models_of("fireworks")


def test_every_default_model_is_priced() -> None:
    """A model that is chosen for people has a known price and window."""
    for model_id in DEFAULTS:
        provider, _, model = model_id.partition("/")
        facts = facts_of(provider, model)
        assert facts.price is not None, model_id
        assert facts.context_tokens, model_id
        assert facts.mode == "chat"


def test_reading_prices_imports_nothing_and_is_quick() -> None:
    """The library is not imported, and parsing takes a small part of what importing it would."""
    code = (
        "import sys, time; from nbllm.providers.prices import facts_of; t = time.process_time(); facts_of('openai', 'gpt-4o-mini');"
        "print('litellm' in sys.modules, time.process_time() - t)"
    )
    loaded, took = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == "False"
    assert float(took) < 1
