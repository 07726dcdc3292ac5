"""One provider of each kind, made late, closed together."""

from __future__ import annotations

import asyncio

import pytest

from nbllm.errors import ConfigurationError
from nbllm.providers.catalog import Catalog
from nbllm.providers.litellm import LiteLLM
from nbllm.providers.openai_compatible import OpenAICompatible
from nbllm.providers.pool import Providers
from nbllm.providers.simulated import Simulated
from nbllm.settings import Endpoint

CATALOG = Catalog({"lab": Endpoint(base_url="http://127.0.0.1:1/v1")}, {})


@pytest.mark.parametrize(
    ("model_id", "kind"),
    [
        ("sim/small", Simulated),
        ("lab/m", OpenAICompatible),
        ("openai/gpt-4o-mini", OpenAICompatible),
        ("anthropic/claude-haiku-4-5", LiteLLM),
    ],
)
def test_each_rung_gets_its_kind(model_id: str, kind: type) -> None:
    """The provider is that of the rung, and the same one each time."""
    providers = Providers({})
    made = providers.get(CATALOG.rung(model_id))
    assert type(made) is kind
    assert providers.get(CATALOG.rung(model_id)) is made


def test_endpoints_of_a_kind_share_one() -> None:
    """Two endpoints on OpenAI's wire are served by one provider."""
    providers = Providers({})
    assert providers.get(CATALOG.rung("lab/m")) is providers.get(CATALOG.rung("groq/openai/gpt-oss-20b"))


def test_a_bad_speed_is_said_when_the_simulator_is_first_used() -> None:
    """NBLLM_SIM_SPEED is read from the environment that was given."""
    with pytest.raises(ConfigurationError, match="NBLLM_SIM_SPEED"):
        Providers({"NBLLM_SIM_SPEED": "warp"}).get(CATALOG.rung("sim/small"))


def test_all_are_closed_and_a_failure_is_not_hidden() -> None:
    """Closing one that fails does not keep the others open, and the failure is raised; afterwards new ones are made."""

    class Stubborn(Simulated):
        async def aclose(self) -> None:
            raise OSError("no")

    class Quiet(Simulated):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    providers, quiet = Providers({}), Quiet()
    providers._made = {"simulated": Stubborn(), "litellm": quiet}
    with pytest.raises(OSError, match="no"):
        asyncio.run(providers.aclose())
    assert quiet.closed
    assert type(providers.get(CATALOG.rung("sim/small"))) is Simulated
    asyncio.run(providers.aclose())
