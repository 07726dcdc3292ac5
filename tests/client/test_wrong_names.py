"""Names that are not there: a typed error that says which one was meant, never a bare TypeError."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from nbllm import Client, Endpoint, Settings
from nbllm.errors import ConfigurationError, InvalidRequest


@pytest.mark.parametrize(("name", "meant"), [("url", "base_url"), ("api_base", "base_url"), ("max_concurency", "max_concurrency")])
def test_a_field_that_an_endpoint_does_not_have(name: str, meant: str) -> None:
    """Endpoint(url=...) names base_url."""
    with pytest.raises(ConfigurationError, match=f"no field {name}.*\n.*{meant}"):
        Endpoint(**{name: "http://127.0.0.1:1/v1"})  # type: ignore[arg-type]  # the mistake that is tested


def test_an_endpoint_can_be_copied_and_sent_all_the_same() -> None:
    """What refuses wrong names stands in the way of neither copy nor pickle."""
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", rpm=3)
    assert copy.copy(endpoint) == pickle.loads(pickle.dumps(endpoint)) == endpoint  # noqa: S301 - our own bytes


@pytest.mark.parametrize("name", ["api_key", "base_url"])
def test_a_key_or_an_address_for_the_client(name: str) -> None:
    """Client(api_key=...) says where keys go, instead of listing every setting."""
    with pytest.raises(ConfigurationError, match=r"belongs to an endpoint") as caught:
        Client(settings=Settings(), **{name: "x"})
    assert "OPENAI_API_KEY" in caught.value.hint
    assert "api_key_env" in caught.value.hint
    assert len(caught.value.hint) < 250


def test_a_home_that_no_system_can_have() -> None:
    """A NUL in a path is refused where it is written."""
    with pytest.raises(ConfigurationError, match="NUL"):
        Client(settings=Settings(), home="a\0")


def test_a_limit_that_check_slo_does_not_know(tmp_path: Path) -> None:
    """check_slo(p95=1) names p95_s."""
    with Client(settings=Settings(), home=tmp_path) as client, pytest.raises(InvalidRequest, match=r"no limit 'p95'.*\n.*p95_s"):
        client.check_slo(p95=1)
