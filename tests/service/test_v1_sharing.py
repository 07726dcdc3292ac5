"""Who shares stored answers on /v1, and other libraries on a gateway, where they are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm import Client
from nbllm.core.ports import Filter
from nbllm.service import create_app
from nbllm.service.gateway import start_gateway
from tests.service.running import running, write_settings

openai = pytest.importorskip("openai")

TEXT = "Summarise: The cat sat on the mat. Dogs bark at night."
ASKED = [{"role": "user", "content": TEXT}]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated models do not wait."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")


@pytest.mark.parametrize(("partition", "second"), [("key", "model"), ("app", "cache")])
def test_each_key_has_its_own_answers_unless_the_app_shares_them(tmp_path: Path, partition: str, second: str) -> None:
    """By default what one caller asked is not served to another; with cache_partition = "app" it is. The ledger names the keys."""
    app = create_app(settings=write_settings(tmp_path / "app", service=f'cache_partition = "{partition}"'))
    with running(app) as served:
        sources = []
        for key in (served.key, served.key, served.service.keys.make("default")[0]):
            with openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0) as sdk:
                raw = sdk.chat.completions.with_raw_response.create(model="sim/small", messages=ASKED)
                sources.append(raw.headers["x-source"])
        users = {row.user for row in served.service.client.ledger.calls(Filter(), limit=9)}
    assert sources == ["model", "cache", second]
    assert len(users) == 2
    assert all(user is not None and user.startswith("key:") for user in users)


def test_langchain_goes_through_a_gateway(tmp_path: Path) -> None:
    """LangChain's client for OpenAI shares the notebook's cache."""
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    with Client(home=tmp_path / "home") as client, start_gateway(client) as gateway:
        asked = client.ask(TEXT, model="sim/small")
        model = chat(model="sim/small", base_url=gateway.base_url, api_key=gateway.key, max_retries=0)
        assert model.invoke(TEXT).content == asked.text


def test_dspy_goes_through_a_gateway(tmp_path: Path) -> None:
    """DSPy's language model is in the notebook's ledger."""
    dspy = pytest.importorskip("dspy")
    with Client(home=tmp_path / "home") as client, start_gateway(client) as gateway:
        model = dspy.LM("openai/sim/small", api_base=gateway.base_url, api_key=gateway.key, cache=False, num_retries=0)
        assert model(TEXT)[0]
        assert len(client.ledger.calls(Filter(), limit=9)) == 1
