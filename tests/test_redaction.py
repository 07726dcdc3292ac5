"""No secret leaves: registered values in every form, keys by their shape, values by the name before them."""

from __future__ import annotations

import base64
import html
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm import redaction
from nbllm.redaction import MASK, is_secret_name, redact, redact_json, redact_name, register_secret
from tests.growth import assert_grows_no_faster
from tests.key_shapes import KEYS, NAMED

CONTEXTS: dict[str, Callable[[str], str]] = {
    "prose": lambda k: f"Your key {k} is wrong.",
    "at the end of a sentence": lambda k: f"You used {k}.",
    "json": lambda k: json.dumps({"error": {"message": f"Incorrect API key provided: {k}"}}),
    "json in json": lambda k: json.dumps(json.dumps({"a": k})),
    "header": lambda k: f"authorization: Bearer {k}\r\nhost: x",
    "header list": lambda k: repr([("x-api-key", k)]),
    "header bytes": lambda k: repr([(b"x-api-key", k.encode())]),
    "query": lambda k: f"https://host/v1?key={k}&x=1",
    "encoded query": lambda k: f"https://host/v1?u=%22{quote(k, safe='')}%22",
    "traceback": lambda k: f'  File "x.py", line 3, in f\n    Client(api_key="{k}")\nValueError: {k!r}',
    "colours": lambda k: f"\x1b[31m{k}\x1b[0m",
    "repr of lines": lambda k: repr(f"first\n{k}\nlast"),
    "html": lambda k: f"<p title=&quot;{html.escape(k)}&quot;>",
    "markdown": lambda k: f"`{k}` and **{k}**",
    "environment": lambda k: f"SOME_NAME={k}",
    "shell": lambda k: f'curl -d \'{{"k":"{k}"}}\' http://x',
    "list": lambda k: f"['{k}','{k}']",
    "unicode escape": lambda k: f"\\u0022{k}\\u0022",
    "parentheses": lambda k: f"f({k})",
}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty registry of secrets, for one test."""
    monkeypatch.setattr(redaction, "_forms", {})
    return


def test_there_are_sixty_shapes() -> None:
    """At least 60 kinds of keys are known by their shape alone."""
    assert len(KEYS) >= 60


@pytest.mark.parametrize("kind", KEYS)
def test_no_key_survives_anywhere(kind: str) -> None:
    """A key of a known shape is gone from prose, JSON, headers, addresses, tracebacks, colours, escapes ..."""
    key = KEYS[kind]
    for context, put in CONTEXTS.items():
        shown = redact(put(key))
        assert key[-16:] not in shown, context
        assert MASK in shown, context
        assert redact(shown) == shown, context


@pytest.mark.parametrize("kind", NAMED)
def test_what_stands_behind_a_telling_name_is_masked(kind: str) -> None:
    """Keys without a shape of their own go because of the name, header or address around them."""
    text, secret = NAMED[kind]
    shown = redact(text)
    assert secret not in shown
    assert MASK in shown
    assert redact(shown) == shown


@pytest.mark.parametrize("kind", NAMED)
def test_and_inside_json_and_repr_too(kind: str) -> None:
    """The same when the text is itself a JSON string or shown by repr()."""
    text, secret = NAMED[kind]
    for shown in (redact(json.dumps({"log": text})), redact(repr(text))):
        assert secret not in shown


SECRET = 'pä/ss+w"ord&0<x>'
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda s: s,
    "upper case": str.upper,
    "lower case": str.lower,
    "url encoded": lambda s: quote(s, safe=""),
    "url encoded twice": lambda s: quote(quote(s, safe=""), safe=""),
    "json": lambda s: json.dumps(s)[1:-1],
    "json readable": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "json, slashes escaped": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "html": html.escape,
    "hex": lambda s: s.encode().hex(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 url": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "base64, one byte before": lambda s: base64.b64encode(b"u" + s.encode()).decode(),
    "base64, two bytes before": lambda s: base64.b64encode(b"u:" + s.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_registered_value_is_masked_in_every_form(form: str, registry: None) -> None:
    """A registered secret is gone as it is, encoded, escaped, in hex or base64, and in any case."""
    register_secret(SECRET)
    written = FORMS[form](SECRET)
    shown = redact(f"before {written} after")
    assert written[4:-4] not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@pytest.mark.parametrize("value", ["EMPTY", "none", "ollama", "lm-studio", "not-needed", "x", "", "test", "redacted"])
def test_placeholders_are_not_registered(value: str, registry: None) -> None:
    """Masking what local servers are given for a key would destroy ordinary text."""
    register_secret(value)
    text = f"The model {value} says test and redacted."
    assert redact(text) == text


ORDINARY = [
    "commit 3f786850e387550fdab836ed7e6dc881de23001b fixes it",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 4).decode(),
    "The key: simplicity. The secret is patience; a token of love. Password required.",
    "Bearer authentication needs a header. basic understanding, Basic authentication.",
    "max_tokens=4096, input_tokens: 412, output_tokens: 96, token: Hello",
    "scikit-learn, task-based-approach-to-2024-planning, disk-usage-report-2024-01-01",
    "api_key=settings.api_key, api_key_env='OPENAI_API_KEY', api_key=None, api_key=get_key()",
    "cache_key=3f786850e387550fdab836ed7e6dc881de23001b0000, primary_key=user_id_1234567",
    "https://example.org/a?page=2&sort=key#token",
    "ssh git@github.com:user/repo.git and mailto:user@example.org at 10:30",
    'def f(token: str, password: str = "") -> None: ...',
    "{'finish_reason': 'stop', 'key': 'value', 'tokens': [1, 2, 3]}",
    "Risk-adjusted sk- and hf_ and gsk_ prefixes; sk-learn",
    "model openai/gpt-4o-mini on http://127.0.0.1:8000/v1 said 401 Unauthorized",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "eyJ is how a JWT begins; e.g. eyJ.",
    "Straße, naïve, 漢字, 🔑 key",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays(text: str, registry: None) -> None:
    """Hashes, UUIDs, images, code and prose about keys come out as they went in."""
    assert redact(text) == text


@given(
    st.lists(st.one_of(st.sampled_from([*KEYS.values(), *(t for t, _ in NAMED.values())]), st.text(max_size=6)), max_size=6).map(
        "".join
    )
)
@settings(max_examples=150, deadline=None)
def test_redacting_twice_changes_nothing(text: str) -> None:
    """It is idempotent, however keys and text run into each other."""
    once = redact(text)
    assert redact(once) == once


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.sampled_from([k for k in KEYS.values() if "/" not in k and not k.startswith("SK0")]),
)
@settings(max_examples=150, deadline=None)
def test_a_key_between_spaces_is_gone_whatever_stands_around(before: str, after: str, key: str) -> None:
    """Text around a key does not hide it."""
    assert key not in redact(f"{before} {key} {after}")


def test_json_is_masked_in_depth() -> None:
    """Nested data: texts, keys of mappings, and whole values under telling names; numbers and None stay."""
    key = KEYS["openai"]
    data = {
        "api_key": "whatever-it-is", "n": 3, "none": None, "list": [key, {"Authorization": "Bearer x12345", key: 1}],
        "raw": key.encode(),
        "token": "Hello", "tuple": (1.5, True), "cache_key": "3f786850e387550fdab836ed7e6dc881de23001b",
    }  # fmt: skip
    shown = redact_json(data)
    assert key not in json.dumps(shown)
    assert shown["api_key"] == MASK
    assert "x12345" not in json.dumps(shown)
    assert (shown["n"], shown["none"], shown["token"], shown["tuple"]) == (3, None, "Hello", [1.5, True])
    assert shown["cache_key"] == data["cache_key"]


def test_json_without_end_ends() -> None:
    """Data that holds itself is cut, not followed forever."""
    data: list[object] = []
    data.append(data)
    assert isinstance(redact_json(data), list)


def test_names_of_secrets_are_known() -> None:
    """Headers and variables that hold secrets by convention are told from others."""
    assert all(
        map(
            is_secret_name,
            ("Authorization", "x-api-key", "OPENAI_API_KEY", "Cookie", "HF_TOKEN", "DB_PASSWORD", "x-portkey-api-key"),
        )
    )
    assert not any(map(is_secret_name, ("Content-Type", "HOME", "x-request-id", "PATH", "x-portkey-provider")))


def test_long_texts_are_quick(registry: None) -> None:
    """5 MB of prose with ten registered secrets take well under a second on a free machine; here at most three."""
    for n in range(10):
        register_secret(f"a-registered-secret-number-{n}-{'x' * 20}")
    text = ("The quick brown fox jumps over the lazy dog, asking about tokens and keys. " * 70_000)[:5_000_000]
    started = time.thread_time()
    assert redact(text) == text
    assert time.thread_time() - started < 3


@pytest.mark.parametrize(
    "piece",
    ["sk-", "sk-a", "api_key=", "api_key='a", "password:", "://", "://a:", "-----BEGIN PRIVATE KEY-----", "bearer ",
     "basic aaaaaaaa", "cookie:", "eyJ", "AKIAQ7XZ2LMN4PRS6TVW ", ":AA", "12345678:AA", "key-", "eyJaaaaaaaaa.aaaa.", "a",
     "token=\\'"],
)  # fmt: skip
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    """Text made to be slow takes four times as long when it is four times as long, and not sixteen."""
    assert_grows_no_faster(redact, piece, 240_000)


def test_importing_it_is_cheap() -> None:
    """Importing the redactor loads nothing of nbllm but itself, and none of its patterns."""
    code = (
        "import sys; import nbllm.redaction; print([m for m in sys.modules if m.startswith('nbllm.') and m != 'nbllm.redaction'])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names_are_remembered_until_there_is_a_new_secret(registry: None) -> None:
    """A model's name that turns out to be a key is masked from the moment on at which the key is known."""
    assert redact_name("plain-model-name") == redact_name("plain-model-name") == "plain-model-name"
    register_secret("plain-model-name")
    assert redact_name("plain-model-name") == MASK
    assert redact_name(KEYS["openai"]) == MASK
