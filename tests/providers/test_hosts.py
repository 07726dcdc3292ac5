"""Which host may see which key."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import AuthenticationFailed, ConfigurationError, KeyNotAllowed
from nbllm.providers.hosts import OTHER_KEYS, PROVIDERS, endpoint_for, has_key, headers_for, host_of, key_for, provider_of
from nbllm.settings import Endpoint

KEYS = {env: f"value-of-{env}" for provider in PROVIDERS.values() for env in provider.key_envs} | {
    env: f"value-of-{env}" for env in OTHER_KEYS
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_provider_gets_its_own_key_over_https(name: str) -> None:
    """The table's address is https, its host may have its key, and the first variable that is set wins."""
    endpoint = endpoint_for(name)
    assert endpoint is not None
    assert urlsplit(endpoint.base_url).scheme == "https"
    assert key_for(name, endpoint, KEYS) == f"value-of-{PROVIDERS[name].key_envs[0]}"
    assert has_key(name, KEYS)
    assert not has_key(name, {})
    last = PROVIDERS[name].key_envs[-1]
    assert key_for(name, endpoint, {last: " k \n"}) == "k"


@pytest.mark.parametrize("env", sorted(KEYS))
def test_no_known_key_goes_to_another_host(env: str) -> None:
    """Every provider's variable is refused for a foreign host, for a look-alike and for loopback; the hint says what to do."""
    own = (PROVIDERS[name].hosts[0] for name in PROVIDERS if env in PROVIDERS[name].key_envs)
    host = next(own, "api.openai.com")
    for url in ("http://evil.example/v1", f"https://{host}.evil.example/v1", f"https://evil-{host}/v1", "http://127.0.0.1:4000/v1"):
        with pytest.raises(KeyNotAllowed, match=env) as caught:
            key_for("lab", Endpoint(base_url=url, api_key_env=env), KEYS)
        assert "LAB_KEY" in caught.value.hint
        assert f"value-of-{env}" not in str(caught.value)


@given(host=st.from_regex(r"[a-z0-9-]{1,12}(\.[a-z0-9-]{1,12}){0,3}", fullmatch=True))
def test_any_host_that_is_not_the_providers_is_refused(host: str) -> None:
    """Only an exact host, or one below a host that begins with a dot, gets a provider's key."""
    url = f"https://{host}/v1"
    if provider_of(url) is None:
        with pytest.raises(KeyNotAllowed):
            key_for("lab", Endpoint(base_url=url, api_key_env="OPENAI_API_KEY"), KEYS)
        assert key_for("lab", Endpoint(base_url=url), KEYS) is None


def test_a_providers_key_does_not_travel_unencrypted() -> None:
    """http:// to the right host is refused too, named or not."""
    for env in ("OPENAI_API_KEY", None):
        with pytest.raises(KeyNotAllowed, match="unencrypted"):
            key_for("openai", Endpoint(base_url="http://api.openai.com/v1", api_key_env=env), KEYS)


def test_an_endpoint_has_the_key_that_it_names() -> None:
    """A literal key and a variable of one's own go wherever the endpoint is; a local server without either gets none."""
    assert key_for("lab", Endpoint(base_url="http://127.0.0.1:1/v1", api_key="abc"), {}) == "abc"
    assert key_for("lab", Endpoint(base_url="http://127.0.0.1:1/v1", api_key_env="LAB_KEY"), {"LAB_KEY": "xyz"}) == "xyz"
    assert key_for("lab", Endpoint(base_url="http://127.0.0.1:1/v1"), KEYS) is None
    assert key_for("openai", Endpoint(base_url="http://127.0.0.1:1/v1"), KEYS) is None
    headers = {"Authorization": "Bearer x"}
    assert key_for("o", Endpoint(base_url="https://api.openai.com/v1", headers=headers), {}) is None


def test_a_key_that_is_needed_and_not_there_says_which_variable() -> None:
    """A provider without a key, an empty variable, and one that is no word are refused before a socket is opened."""
    with pytest.raises(AuthenticationFailed, match="GROQ_API_KEY"):
        key_for("groq", Endpoint(base_url="https://api.groq.com/openai/v1"), {"GROQ_API_KEY": "  "})
    with pytest.raises(AuthenticationFailed, match="LAB_KEY"):
        key_for("lab", Endpoint(base_url="http://127.0.0.1:1/v1", api_key_env="LAB_KEY"), {})
    for bad in ("two words", "line\nbreak", "schlüssel", "nul\0"):
        with pytest.raises(AuthenticationFailed) as caught:
            key_for("lab", Endpoint(base_url="http://127.0.0.1:1/v1", api_key_env="LAB_KEY"), {"LAB_KEY": bad})
        assert bad not in str(caught.value)


@pytest.mark.parametrize("env", sorted(KEYS))
def test_no_known_key_goes_to_another_host_in_a_header(env: str) -> None:
    """A header that names a provider's variable is refused for a foreign host, under any name and in any case."""
    for named in (env, env.lower()):
        lab = Endpoint(base_url="http://evil.example/v1", headers={"X": f"${named}"})
        with pytest.raises(KeyNotAllowed, match=f"(?i){env}") as caught:
            headers_for("lab", lab, KEYS)
        assert "the header X" in caught.value.hint
        assert f"value-of-{env}" not in str(caught.value)


def test_headers_are_filled_from_variables_when_they_are_asked_for() -> None:
    """A variable of one's own goes anywhere and may change; one that is not set is left out; a provider's goes to its hosts."""
    lab = Endpoint(base_url="http://127.0.0.1:1/v1", headers={"X-Key": "$LAB_KEY", "X-Team": "blue", "X-Cost": "$5"})
    literal = {"X-Team": "blue", "X-Cost": "$5"}
    assert headers_for("lab", lab, {"LAB_KEY": " one\n"}) == {"X-Key": "one", **literal}
    assert headers_for("lab", lab, {"LAB_KEY": "two"}) == {"X-Key": "two", **literal}
    assert headers_for("lab", lab, {"LAB_KEY": ""}) == literal
    own = Endpoint(base_url="https://api.openai.com/v1", headers={"X": "$OPENAI_API_KEY"})
    assert headers_for("o", own, KEYS) == {"X": "value-of-OPENAI_API_KEY"}
    assert headers_for("o", Endpoint(base_url="http://127.0.0.1:1/v1"), KEYS) == {}


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000/v1", "ftp://x/v1", "http://", "http://:80/v1", "http://x:99999/v1", "http://a b/v1", "http://[::1/v1"],
)
def test_what_is_no_address_is_named(url: str) -> None:
    """A base_url that cannot work is refused with an example."""
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        host_of(url)
    assert "http://127.0.0.1:8000/v1" in caught.value.hint


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    """Secrets do not belong into base_url: it is shown in messages."""
    with pytest.raises(ConfigurationError, match="password") as caught:
        host_of("https://me:hidden-word@models.example/v1")
    assert "hidden-word" not in str(caught.value)
