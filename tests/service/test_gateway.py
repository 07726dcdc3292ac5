"""The gateway: the unchanged openai SDK on this process's own client."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.errors import ConfigurationError
from nbllm.service.gateway import RunningGateway, start_gateway

pytestmark = pytest.mark.timeout(120)
ASKED = [{"role": "user", "content": "The river rose. The town slept. What did the river do?"}]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a notebook."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    with Client(home=tmp_path / "home") as made:
        yield made


@pytest.fixture
def gateway(client: Client) -> Iterator[RunningGateway]:
    """Its gateway."""
    with start_gateway(client) as opened:
        yield opened


def test_an_sdk_shares_cache_ledger_and_budgets(client: Client, gateway: RunningGateway) -> None:
    """What the notebook asked is a hit for the SDK and the other way round; both are in one session's books."""
    import openai

    before = client.ask(ASKED, model="sim/large")
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0)
    answer = sdk.chat.completions.create(model="sim/large", messages=ASKED)  # type: ignore[arg-type]  # plain dicts
    assert answer.choices[0].message.content == before.text
    spent = client.spent_session_usd()
    assert spent == before.cost_usd
    pieces = sdk.chat.completions.create(model="sim/small", messages=ASKED, stream=True)  # type: ignore[call-overload]  # as above
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
    assert client.spent_session_usd() > spent
    again = client.ask(ASKED, model="sim/small")
    assert (again.text, again.source) == (text, "cache")
    (total,) = client.usage("total")
    assert (total.calls, total.hits) == (4, 2)
    client.set_budget("request", Decimal("0.0000001"))
    with pytest.raises(openai.APIStatusError) as refused:
        sdk.chat.completions.create(model="sim/large", messages=[{"role": "user", "content": "Something new?"}])
    assert "budget" in str(refused.value).casefold()


def test_without_its_key_nobody_is_let_in(client: Client, gateway: RunningGateway) -> None:
    """Neither another key nor that of a service on the same home; the key is not shown by accident."""
    import openai

    sdk = openai.OpenAI(base_url=gateway.base_url, api_key="nbllm_00000000_" + "x" * 43, max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        sdk.models.list()
    assert gateway.key not in repr(gateway)
    assert not list(client.settings.home.glob("*keys*"))


def test_stopped_it_is_gone_and_the_client_goes_on(client: Client) -> None:
    """No thread and no port is left; opening one where one listens is refused."""
    import openai

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot be opened"):
        start_gateway(client, port=taken.getsockname()[1])
    gateway = start_gateway(client)
    assert gateway.is_open
    gateway.stop()
    gateway.stop()
    assert not gateway.is_open
    sdk = openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key, max_retries=0)
    with pytest.raises(openai.APIConnectionError):
        sdk.models.list()
    assert client.ask("Name a river.", model="sim/small").text


@pytest.mark.skipif(os.name != "posix", reason="sends SIGTERM")
def test_the_command_says_what_to_set_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """`nbllm gateway` prints two variables that an SDK reads by itself; SIGTERM ends it well."""
    import openai

    variables = {**os.environ, "NBLLM_HOME": str(tmp_path / "home"), "NBLLM_SIM_SPEED": "0", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "nbllm.cli", "gateway"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        told = dict(re.match(r"(\w+)=(.+)", process.stdout.readline()).groups() for _ in range(2))  # type: ignore[union-attr,misc]
        sdk = openai.OpenAI(base_url=told["OPENAI_BASE_URL"], api_key=told["OPENAI_API_KEY"], max_retries=0)
        assert sdk.chat.completions.create(model="sim/small", messages=ASKED).choices[0].message.content  # type: ignore[arg-type]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
