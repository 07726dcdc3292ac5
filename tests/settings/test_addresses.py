"""An endpoint's address can come from the environment: a server moves, the settings file stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm import Client, Endpoint
from nbllm.errors import AllRungsFailed, ConfigurationError, KeyNotAllowed
from nbllm.providers.hosts import key_for
from nbllm.settings import Settings
from nbllm.settings.addresses import address_variable, is_address
from nbllm.settings.load import load_file

FILE = """
model = "vllm/qwen"
[endpoints.vllm]
base_url = "http://127.0.0.1:8000/v1"
identity = "vllm:qwen"
api_key_env = "LAB_KEY"
[endpoints.my-lab]
base_url = "http://127.0.0.1:9000/v1"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with settings."""
    (tmp_path / "nbllm.toml").write_text(FILE, encoding="utf-8")
    return tmp_path


def test_a_variable_moves_an_endpoint_and_nothing_else(folder: Path) -> None:
    """In a settings file of any kind; where the address is from is said, the rest of the endpoint is the file's."""
    environ = {"NBLLM_ENDPOINTS__VLLM__BASE_URL": "http://GPU-box:8001/v1/", "NBLLM_ENDPOINTS__MY_LAB__BASE_URL": " "}
    for found in (Settings.load(start=folder, environ=environ), load_file(folder / "nbllm.toml", environ)[0]):
        vllm = found.endpoints["vllm"]
        assert vllm.base_url == "http://gpu-box:8001/v1"
        assert (vllm.identity, vllm.api_key_env, vllm.settings_file[:10]) == ("vllm:qwen", "LAB_KEY", "nbllm.toml")
        assert found.endpoints["my-lab"].base_url == "http://127.0.0.1:9000/v1"
        assert found.origin("endpoints.vllm").endswith("base_url: NBLLM_ENDPOINTS__VLLM__BASE_URL")
        assert found.notes == ()


def test_a_key_does_not_follow_to_a_foreign_host_without_a_word(folder: Path) -> None:
    """The file names the key, the variable the host: the user says that the two belong together, as always."""
    environ = {"NBLLM_ENDPOINTS__VLLM__BASE_URL": "http://gpu-box:8001/v1", "LAB_KEY": "k" * 32}
    endpoint = Settings.load(start=folder, environ=environ).endpoints["vllm"]
    with pytest.raises(KeyNotAllowed, match="gpu-box"):
        key_for("vllm", endpoint, environ)
    assert key_for("vllm", endpoint, {**environ, "NBLLM_KEY_HOSTS": "LAB_KEY@gpu-box"}) == "k" * 32


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("NBLLM_ENDPOINTS__VLLM__BASE_URL", "not an address", "NBLLM_ENDPOINTS__VLLM__BASE_URL: "),
        ("NBLLM_ENDPOINTS__VLLM__API_KEY", "x", "only the address has one"),
        ("NBLLM_ENDPOINTS__VLLM", "x", "only the address has one"),
        ("NBLLM_ENDPOINTS____BASE_URL", "x", "only the address has one"),
    ],
)
def test_what_makes_no_sense_is_named(folder: Path, variable: str, text: str, says: str) -> None:
    """A bad address, and anything of an endpoint but its address."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(start=folder, environ={variable: text})
    assert says in str(caught.value)


def test_an_endpoint_that_is_not_there_is_a_note(folder: Path) -> None:
    """A shell may have the variable for another project."""
    found = Settings.load(start=folder, environ={"NBLLM_ENDPOINTS__OTHER__BASE_URL": "http://127.0.0.1:1/v1"})
    assert found.notes == ("NBLLM_ENDPOINTS__OTHER__BASE_URL is the address of no endpoint of the settings and is ignored.",)


def test_two_endpoints_of_one_variable(folder: Path) -> None:
    """Nobody can say which is meant."""
    (folder / "nbllm.toml").write_text(FILE + '[endpoints.my_lab]\nbase_url = "http://127.0.0.1:1/v1"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="could be the address of my-lab and my_lab"):
        Settings.load(start=folder, environ={"NBLLM_ENDPOINTS__MY_LAB__BASE_URL": "http://127.0.0.1:2/v1"})


def test_a_refused_connection_names_the_variable(folder: Path) -> None:
    """Who finds no server at the file's address is told how it is moved; nothing of the kind for an endpoint made in code."""
    settings = Settings.load(start=folder, environ={"NBLLM_ENDPOINTS__MY_LAB__BASE_URL": "http://127.0.0.1:9/v1"})
    with Client(settings=settings, home=folder / "home", retries=0) as client, pytest.raises(AllRungsFailed) as caught:
        client.ask("hi", model="my-lab/x")
    assert "NBLLM_ENDPOINTS__MY_LAB__BASE_URL in the environment says where it is now" in str(caught.value)
    code = {"vllm": Endpoint(base_url="http://127.0.0.1:9/v1")}
    with Client(endpoints=code, home=folder / "home", retries=0) as client, pytest.raises(AllRungsFailed) as caught:
        client.ask("hi", model="vllm/x")
    assert "NBLLM_ENDPOINTS" not in str(caught.value)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True))
def test_any_endpoint_has_a_variable_that_shells_can_set(name: str) -> None:
    """Letters, digits and _ alone, and it is recognised."""
    variable = address_variable(name)
    assert variable.replace("_", "").isalnum()
    assert variable.isascii()
    assert is_address(variable)
