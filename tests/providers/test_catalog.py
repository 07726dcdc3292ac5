"""From a model id to a rung."""

from __future__ import annotations

import subprocess
import sys
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core.pricing import Price
from nbllm.engines.catalog import ENGINES
from nbllm.errors import ConfigurationError, KeyNotAllowed, UnknownModel
from nbllm.providers.catalog import SERVERS, Catalog, normalised
from nbllm.providers.hosts import PROVIDERS, key_for
from nbllm.settings import Endpoint

LAB = Endpoint(base_url="HTTP://127.0.0.1:80/v1/")


def test_an_endpoint_of_the_settings() -> None:
    """It wins over a provider of the same name; its identity is its normalised address."""
    rung = Catalog({"openai": LAB}, {}).rung("openai/qwen/qwen3:8b")
    assert (rung.endpoint_name, rung.model, rung.provider) == ("openai", "qwen/qwen3:8b", "openai_compatible")
    assert rung.identity == "http://127.0.0.1/v1"
    assert rung.endpoint is LAB
    assert rung.price is None


def test_an_endpoint_states_its_own_facts() -> None:
    """Prices, limits and identity of the endpoint win over the price list."""
    endpoint = Endpoint(
        base_url="https://api.openai.com/v1",
        input_usd_per_mtok=1.5,
        output_usd_per_mtok=Decimal(3),
        context_tokens=4096,
        max_output_tokens=512,
        identity="my-lab",
    )
    rung = Catalog({"lab": endpoint}, {}).rung("lab/gpt-4o-mini")
    assert rung.price == Price(Decimal("1.5"), Decimal(3))
    assert (rung.context_tokens, rung.max_output_tokens, rung.identity) == (4096, 512, "my-lab")


def test_headers_that_route_and_json_mode_are_part_of_the_identity() -> None:
    """Endpoints at one address share answers only where they ask for the same; identity= wins over all of it."""
    address = "http://127.0.0.1:8787/v1"

    def identity(**fields: Any) -> str:
        return Catalog({"lab": Endpoint(base_url=address, **fields)}, {}).rung("lab/m").identity

    different = [
        identity(), identity(json_mode=True), identity(json_mode=False),
        *(identity(headers={"x-portkey-provider": name}) for name in ("openai", "groq")),
        identity(headers={"x-portkey-provider": "groq"}, json_mode=True),
        identity(headers={"x-portkey-provider": "groq", "x-portkey-config": "a"}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert identity() == identity(headers={}) == address
    one, two = {"X-Portkey-Provider": "groq", "a": "b"}, {"A": "b", "x-portkey-provider": "groq"}
    assert identity(headers=one) == identity(headers=two)
    assert identity(headers=one, json_mode=False, identity="mine") == "mine"


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer x"), ("x-portkey-api-key", "pk"), ("Helicone-Auth", "x"), ("Cookie", "a=b"), ("X-Team", "$TEAM"),
        ("X-Other", "sk-proj-0123456789abcdefABCDEF0123456789"),
    ],
)  # fmt: skip
def test_a_secret_is_no_part_of_the_identity(header: tuple[str, str]) -> None:
    """A key may change without losing the cache, and stands in nothing that is kept."""
    lab = Endpoint(base_url="http://127.0.0.1:8787/v1", headers=dict([header]))
    assert Catalog({"lab": lab}, {}).rung("lab/m").identity == "http://127.0.0.1:8787/v1"


def test_a_providers_host_has_its_list_price() -> None:
    """An endpoint at a provider's own host is priced by the list, another address is not."""
    catalog = Catalog(
        {"mine": Endpoint(base_url="https://api.openai.com/v1"), "proxy": Endpoint(base_url="https://proxy.example/v1")}, {}
    )
    assert catalog.rung("mine/gpt-4o-mini").price == catalog.rung("openai/gpt-4o-mini").price
    assert catalog.rung("mine/gpt-4o-mini").price is not None
    assert catalog.rung("proxy/gpt-4o-mini").price is None


def test_half_a_price_is_no_price() -> None:
    """An input price alone cannot price a call."""
    endpoint = Endpoint(base_url="https://proxy.example/v1", input_usd_per_mtok=1)
    assert Catalog({"lab": endpoint}, {}).rung("lab/x").price is None


def test_a_free_endpoint_costs_nothing() -> None:
    """Prices of 0 that an endpoint states are known prices."""
    endpoint = Endpoint(base_url="http://127.0.0.1:8000/v1", input_usd_per_mtok=0, output_usd_per_mtok=0)
    assert Catalog({"lab": endpoint}, {}).rung("lab/x").price == Price(Decimal(0), Decimal(0))


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_providers_on_openais_wire(name: str) -> None:
    """Every provider in the table of hosts goes to its own address through openai_compatible."""
    rung = Catalog({}, {}).rung(f"{name}/some-model")
    assert rung.provider == "openai_compatible"
    assert rung.endpoint.base_url == PROVIDERS[name].base_url


@pytest.mark.parametrize(
    "model_id",
    [
        "anthropic/claude-haiku-4-5",
        "bedrock/anthropic.claude-haiku-4-5-20251001-v1:0",
        "gemini/gemini-2.5-flash",
        "vertex_ai/gemini-2.5-pro",
        "azure/my-deployment",
        "cohere/command-r7b-12-2024",
        "voyage/voyage-3",
    ],
)
def test_providers_of_litellm(model_id: str) -> None:
    """The rest goes through LiteLLM, under LiteLLM's names."""
    rung = Catalog({}, {}).rung(model_id)
    assert rung.provider == "litellm"
    assert rung.identity.startswith(f"litellm:{model_id.partition('/')[0]}")


def test_litellm_identity_holds_the_address() -> None:
    """Two Azure resources are two endpoints in cache keys."""
    one, other = (Catalog({}, {"AZURE_API_BASE": f"https://{name}.openai.azure.com/"}).rung("azure/d") for name in ("a", "b"))
    assert one.identity == "litellm:azure:https://a.openai.azure.com"
    assert one.identity != other.identity


def test_keys_of_litellms_providers_are_bound_to_hosts() -> None:
    """The Anthropic key goes to Anthropic, and an Azure key not to an address that is none of Azure's."""
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1", "AZURE_API_KEY": "k", "AZURE_API_BASE": "https://evil.example"}
    catalog = Catalog({}, environ)
    anthropic = catalog.rung("anthropic/claude-haiku-4-5")
    assert key_for("anthropic", anthropic.endpoint, environ) == "sk-ant-1"
    with pytest.raises(KeyNotAllowed):
        key_for("azure", catalog.rung("azure/d").endpoint, environ)


def test_simulated() -> None:
    """The simulator is always there, priced, labelled, and its options are part of the model."""
    rung = Catalog({}, {}).rung("sim/large?fault=stall")
    assert rung.simulated
    assert rung.model == "large?fault=stall"
    assert rung.price is not None
    assert "(simulated)" in rung.label


@pytest.mark.parametrize(
    ("model_id", "said"),
    [
        ("gpt-4o-mini", "Did you mean openai/gpt-4o-mini"),
        ("claude-haiku-4-5", "Did you mean anthropic/claude-haiku-4-5"),
        ("opnai/gpt-4o-mini", "Did you mean openai/gpt-4o-mini"),
        ("labb/qwen", "Did you mean lab/qwen"),
        ("nowhere-at-all/x", "Endpoints of your settings: lab. Providers whose key is set: groq"),
        ("", "is no model id"),
        ("lab/", "is no model id"),
        ("/qwen", "is no model id"),
        (" lab/qwen", "is no model id"),
        ("sim/huge", "no simulated model 'huge'"),
        ("sim/large?fault=stal", "Did you mean stall"),
    ],
)
def test_unknown_models_say_what_there_is(model_id: str, said: str) -> None:
    """A clear error, with the nearest name or what exists, and never a key."""
    with pytest.raises(UnknownModel) as caught:
        Catalog({"lab": LAB}, {"GROQ_API_KEY": "gsk_secret"}).rung(model_id)
    assert said in str(caught.value)
    assert "gsk_secret" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_a_server_that_nobody_started_is_told_at_once(name: str) -> None:
    """No package is asked for, nothing heavy is imported: where such a server's address is written."""
    for ask in (lambda: Catalog({}, {}).rung(f"{name}/x"), lambda: Catalog({}, {}).models(name)):
        with pytest.raises(UnknownModel, match=f"no server is known here as '{name}'") as caught:
            ask()
        assert f"[endpoints.{name}]" in caught.value.hint
    assert name not in Catalog({}, {}).names()
    assert Catalog({name: LAB}, {}).rung(f"{name}/x").provider == "openai_compatible"


def test_servers_are_what_engines_are_called() -> None:
    """Each engine's endpoint is such a name, but Ollama's: LiteLLM reaches that where it always listens."""
    assert {kind.endpoint for kind in ENGINES.values()} - {"ollama"} == SERVERS


def test_a_repeat_is_a_lookup() -> None:
    """The same id gives the same object, in a few microseconds."""
    catalog = Catalog({}, {})
    rung = catalog.rung("openai/gpt-4o-mini")
    start_s = time.thread_time()
    for _ in range(1000):
        assert catalog.rung("openai/gpt-4o-mini") is rung
    assert time.thread_time() - start_s < 0.05


def test_models_are_listed() -> None:
    """sim, then what is usable: rows with price, window and the names of key variables, never a key."""
    rows = Catalog({"lab": LAB}, {"OPENAI_API_KEY": "sk-secret"}).models()
    by_id = {row.id: row for row in rows}
    assert rows[0].id == "sim/small"
    assert rows[0].simulated
    assert rows[0].key_set is None
    mini = by_id["openai/gpt-4o-mini"]
    assert mini.key == ("OPENAI_API_KEY",)
    assert mini.key_set
    assert mini.price is not None
    assert mini.context_tokens == 128_000
    assert not any(row.id.startswith("anthropic/") for row in rows)
    assert "sk-secret" not in repr(rows)
    asked = Catalog({}, {}).models("anthropic")
    assert asked
    assert not any(row.key_set for row in asked)
    with pytest.raises(UnknownModel, match="Did you mean anthropic"):
        Catalog({}, {}).models("antropic")


@pytest.mark.parametrize(
    ("given_url", "normal"),
    [
        ("HTTPS://API.Example.COM:443/v1/", "https://api.example.com/v1"),
        ("http://127.0.0.1:8000/v1//", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://x.example./V1?api-version=2", "https://x.example/V1?api-version=2"),
    ],
)
def test_addresses_are_normalised(given_url: str, normal: str) -> None:
    """Case of scheme and host, default ports and slashes at the end make no other endpoint; path and query do."""
    assert normalised(given_url) == normal


@given(
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z]{1,10}(\.[a-z]{2,5}){1,2}", fullmatch=True),
    st.integers(1, 65535),
    st.text("abc/", max_size=8),
)
def test_normalising_twice_changes_nothing(scheme: str, host: str, port: int, path: str) -> None:
    """The normal form is its own normal form."""
    once = normalised(f"{scheme}://{host}:{port}/{path}")
    assert normalised(once) == once


@pytest.mark.parametrize("url", ["ftp://x/v1", "127.0.0.1:8000", "http://", "http://user:pw@x/v1", "http://x/v1#frag"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Nothing that is no http address becomes an identity."""
    with pytest.raises(ConfigurationError):
        normalised(url)


def test_nothing_heavy_is_imported() -> None:
    """A catalog, its rungs of every kind and a simulated provider load neither litellm nor aiohttp, openai or pydantic."""
    code = (
        "import sys; from nbllm.providers.catalog import Catalog; from nbllm.providers.pool import Providers; c = Catalog({}, {});"
        "[c.rung(m) for m in ('sim/large', 'openai/gpt-4o-mini', 'anthropic/claude-haiku-4-5')];"
        "Providers({}).get(c.rung('sim/small'));"
        "print(sorted({'litellm', 'aiohttp', 'openai', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
