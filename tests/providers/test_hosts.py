"""Which host may see which key."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import AuthenticationFailed, ConfigurationError, KeyNotAllowed, SettingsFileError
from nbllm.providers.hosts import OTHER_KEYS, PROVIDERS, endpoint_for, has_key, headers_for, host_of, key_for, provider_of
from nbllm.settings import Endpoint, Settings

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


def of_file(folder: Path, **fields: object) -> Endpoint:
    """The endpoint `lab` of a settings file."""
    headers = fields.pop("headers", {})
    lines = ["[endpoints.lab]", *(f'{name} = "{value}"' for name, value in fields.items()), "[endpoints.lab.headers]"]
    lines += [f'{name} = "{value}"' for name, value in dict(headers).items()]  # type: ignore[call-overload]  # of the tests below
    (folder / "nbllm.toml").write_text("\n".join(lines))
    return Settings.load(start=folder, environ={}).endpoints["lab"]


@pytest.mark.parametrize("env", ["DATABASE_PASSWORD", "STRIPE_API_KEY", "LAB_KEY", "LAB_API_KEY", "HOME", "AWS_ACCESS_KEY_ID"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "lab.example", "10.0.0.7", "x.localhost"])
@pytest.mark.parametrize(
    "allowed", [None, "", "OTHER@{host}", "{env}@other.example", "{env}@.{host}", "{env}@evil", "X{env}@{host}"]
)
def test_a_file_sends_no_variable_where_only_the_file_says_so(env: str, host: str, allowed: str | None, tmp_path: Path) -> None:
    """A cloned project names any variable, under any name, for its own host; refused, as key or header, with how to allow it."""
    secret = "the-value-of-it"
    environ = {env: secret} | ({} if allowed is None else {"NBLLM_KEY_HOSTS": allowed.format(env=env, host=host)})
    url = f"https://{host}/v1"
    for ask in (
        lambda: key_for("lab", of_file(tmp_path, base_url=url, api_key_env=env), environ),
        lambda: headers_for("lab", of_file(tmp_path, base_url=url, headers={"X-Key": f"${env}"}), environ),
    ):
        with pytest.raises(KeyNotAllowed, match=f"nbllm.toml:1 would have {env} sent to {host}") as caught:
            ask()
        assert f"{env}@{host}" in caught.value.hint
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost:11434/v1", "https://[::1]/v1", "http://127.9.9.9/v1"]
)
def test_a_file_may_name_a_variable_for_this_machine(url: str, tmp_path: Path) -> None:
    """The README's example: a server on this machine gets the key that the file names."""
    assert key_for("lab", of_file(tmp_path, base_url=url, api_key_env="LAB_KEY"), {"LAB_KEY": "xyz"}) == "xyz"
    assert headers_for("lab", of_file(tmp_path, base_url=url, headers={"X": "$LAB_KEY"}), {"LAB_KEY": "xyz"}) == {"X": "xyz"}


@pytest.mark.parametrize("allowed", ["LAB_KEY@models.example", " lab_key @ MODELS.example ,", "A@b,LAB_KEY@x,LAB_KEY@.example"])
def test_the_user_may_allow_what_a_file_asks_for(allowed: str, tmp_path: Path) -> None:
    """NBLLM_KEY_HOSTS names hosts for a variable, several if need be; a dot in front stands for all hosts below."""
    environ = {"LAB_KEY": "xyz", "NBLLM_KEY_HOSTS": allowed}
    url = "https://models.example/v1"
    assert key_for("lab", of_file(tmp_path, base_url=url, api_key_env="LAB_KEY"), environ) == "xyz"
    assert headers_for("lab", of_file(tmp_path, base_url=url, headers={"X": "$LAB_KEY"}), environ) == {"X": "xyz"}


def test_the_hint_is_what_helps(tmp_path: Path) -> None:
    """What the error says to set is enough, and keeps what was allowed before."""
    lab = of_file(tmp_path, base_url="https://models.example/v1", api_key_env="LAB_KEY")
    environ = {"LAB_KEY": "xyz", "NBLLM_KEY_HOSTS": "OTHER@one.example"}
    with pytest.raises(KeyNotAllowed) as caught:
        key_for("lab", lab, environ)
    told = re.search(r"NBLLM_KEY_HOSTS='([^']+)'", caught.value.hint)
    assert told is not None
    assert told[1] == "OTHER@one.example, LAB_KEY@models.example"
    assert key_for("lab", lab, environ | {"NBLLM_KEY_HOSTS": told[1]}) == "xyz"


@pytest.mark.parametrize(
    "bad", ["LAB_KEY", "LAB_KEY@", "@models.example", "LAB_KEY=x", "LAB_KEY@https://models.example/v1", "LAB KEY@a", "a@b c"]
)
def test_what_allows_nothing_is_named(bad: str, tmp_path: Path) -> None:
    """A pair that cannot be meant is refused with an example, not passed over."""
    lab = of_file(tmp_path, base_url="https://models.example/v1", api_key_env="LAB_KEY")
    with pytest.raises(ConfigurationError, match="no NAME@host") as caught:
        key_for("lab", lab, {"LAB_KEY": "xyz", "NBLLM_KEY_HOSTS": bad})
    assert "LAB_KEY@models.example.org" in caught.value.hint


def test_known_keys_and_code_are_as_they_were(tmp_path: Path) -> None:
    """A file may name a provider's key for the provider, and no permission sends it elsewhere; code may name any variable."""
    known = of_file(tmp_path, base_url="https://api.groq.com/openai/v1", api_key_env="GROQ_API_KEY")
    assert key_for("lab", known, KEYS) == "value-of-GROQ_API_KEY"
    environ = KEYS | {"NBLLM_KEY_HOSTS": "GROQ_API_KEY@evil.example"}
    with pytest.raises(KeyNotAllowed, match=r"belongs to api\.groq\.com"):
        key_for("lab", of_file(tmp_path, base_url="https://evil.example/v1", api_key_env="GROQ_API_KEY"), environ)
    code = Endpoint(base_url="https://models.example/v1", api_key_env="LAB_KEY", headers={"X": "$LAB_KEY"})
    assert key_for("lab", code, {"LAB_KEY": "xyz"}) == "xyz"
    assert headers_for("lab", code, {"LAB_KEY": "xyz"}) == {"X": "xyz"}


def test_a_file_stays_a_file(tmp_path: Path) -> None:
    """Neither other settings that change nor a pickle make it an endpoint of code, and a file cannot say that it is none."""
    of_file(tmp_path, base_url="https://models.example/v1", api_key_env="LAB_KEY")
    settings = Settings.load(start=tmp_path, environ={}).replace_values("%llm_config", model="lab/x", deadline_s=5)
    for endpoint in (settings.endpoints["lab"], pickle.loads(pickle.dumps(settings.endpoints["lab"]))):  # noqa: S301 - our own
        assert endpoint.settings_file == "nbllm.toml:1"
        with pytest.raises(KeyNotAllowed):
            key_for("lab", endpoint, {"LAB_KEY": "xyz"})
    with pytest.raises(SettingsFileError, match="settings_file"):
        of_file(tmp_path, base_url="https://models.example/v1", settings_file="")


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
