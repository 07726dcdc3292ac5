"""Bad input: the right error, which names the value and says what to do; nothing sent; the ledger untouched or consistent."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, Endpoint, Settings, errors
from nbllm.testing import FakeProvider, offline
from tests.client.helpers import fake_client, rows


@dataclass(frozen=True)
class Bad:
    """One bad call. says: parts of the message, in any order; hint: part of what to do."""

    prompt: Any
    options: dict[str, Any]
    error: type[Exception]
    says: tuple[str, ...]
    hint: str


@dataclass(frozen=True)
class Door:
    """A way to ask, and what is behind it."""

    name: str
    client: Client
    fake: FakeProvider


async def async_check(text: str) -> bool:
    """What a check may not be."""
    return bool(text)


class AsyncChecker:
    """The same, in another form."""

    async def __call__(self, text: str) -> bool:
        """Return a coroutine."""
        return bool(text)


class NoSchema:
    """A class from which no schema can be made."""


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: Any = "x"
for _ in range(5000):
    DEEP = [DEEP]

USER = [{"role": "user", "content": "hi"}]
INVALID, SCHEMA, UNKNOWN = errors.InvalidRequest, errors.SchemaError, errors.UnknownModel


def option(name: str, value: Any, *says: str, hint: str = "") -> Bad:
    """A good prompt with a bad option."""
    return Bad("hello", {name: value}, INVALID, (name, *says), hint)


def prompt(value: Any, *says: str, hint: str = "") -> Bad:
    """A bad prompt."""
    return Bad(value, {}, INVALID, says, hint)


CASES = {
    # the prompt
    "empty prompt": prompt("", "prompt is empty", hint="Write what"),
    "white space": prompt(" \n\t", "prompt is empty", hint="Write what"),
    "bytes": prompt(b"hello", "a bytes", hint="Give a string"),
    "None": prompt(None, "a NoneType", hint="Give a string"),
    "a number": prompt(7, "a int", hint="Give a string"),
    "one message": prompt(USER[0], "a dict", hint="list of messages"),
    "no messages": prompt([], "list of messages is empty", hint="at least one"),
    "a generator": prompt((m for m in USER), "a generator", hint="Give a string"),
    "a message that is text": prompt(["hi"], "Message 0", "'hi'", hint='"role"'),
    "a message without role": prompt([{"content": "hi"}], "Message 0", "role", hint='"role"'),
    "a message of nobody": prompt([*USER, {"role": "robot", "content": "hi"}], "Message 1", "robot", hint='"role"'),
    "a message without content": prompt([{"role": "user", "content": ""}], "Message 0", "user", hint="Write what it says"),
    "a message of None": prompt([{"role": "user", "content": None}], "Message 0", hint="Write what it says"),
    "content that is a number": prompt([{"role": "user", "content": 5}], "message 0", "5", hint="content parts"),
    "content that is bytes": prompt([{"role": "user", "content": b"hi"}], "message 0", "b'hi'", hint="content parts"),
    "a part that is bytes": prompt([{"role": "user", "content": [{"type": "text", "text": b"x"}]}], "JSON", "bytes", hint="text"),
    "a part that is NaN": prompt([{"role": "user", "content": [{"type": "text", "x": math.nan}]}], "JSON", hint="finite"),
    "messages that hold themselves": prompt([{"role": "user", "content": LOOP}], "holds itself", hint="Flatten"),
    "messages that are too deep": prompt([{"role": "user", "content": DEEP}], "nested too deeply", hint="Flatten"),
    "NUL": prompt("a\0b", "NUL", "position 1", hint="replace"),
    "NUL in a message": prompt([*USER, {"role": "user", "content": "a\0b"}], "message 1", "NUL", hint="replace"),
    "lone surrogate": prompt("a\ud800", "U+D800", "position 1", hint="surrogateescape"),
    "lone surrogate in a part": prompt([{"role": "user", "content": [{"type": "text", "text": "\udfff"}]}], "message 0", "U+DFFF"),
    "lone surrogate in a key": prompt([{"role": "user", "content": "hi", "\ud800": 1}], "message 0", "U+D800"),
    # options
    "unknown option": option("temprature", 1, hint="Did you mean temperature?"),
    "unknown option, far away": option("zzz", 1, hint="Known: "),
    "n": option("n", 2, "n=2", hint="sample=0, 1, 2"),
    "negative temperature": option("temperature", -1, "-1", "at least 0", hint="Sampling"),
    "temperature that is text": option("temperature", "hot", "'hot'", "number"),
    "temperature that is True": option("temperature", True, "True", "number"),
    "temperature NaN": option("temperature", math.nan, "nan", "finite"),
    "temperature infinite": option("temperature", math.inf, "inf", "finite"),
    "max_tokens 0": option("max_tokens", 0, "0", "at least 1"),
    "max_tokens 1.5": option("max_tokens", 1.5, "1.5", "whole number"),
    "max_tokens True": option("max_tokens", True, "True", "whole number"),
    "max_tokens huge": option("max_tokens", 2**70, "64 bits"),
    "top_p 2": option("top_p", 2, "at most 1"),
    "seed that is text": option("seed", "1", "'1'"),
    "deadline 0": option("deadline_s", 0, "0", "greater than 0", hint="seconds"),
    "deadline negative": option("deadline_s", -1, "-1", "greater than 0"),
    "deadline NaN": option("deadline_s", math.nan, "nan", "finite"),
    "deadline infinite": option("deadline_s", math.inf, "inf", "finite"),
    "deadline None": option("deadline_s", None, "cannot be None"),
    "deadline True": option("deadline_s", True, "True"),
    "a ttft of 0": option("ttft_s", 0, "greater than 0"),
    "negative ttl": option("ttl_s", -5, "-5"),
    "negative retries": option("retries", -1, "-1"),
    "too many repairs": option("repairs", 1000, "1000", "at most 20"),
    "negative sample": option("sample", -1, "-1"),
    "negative budget": option("budget_usd", -1, "negative", "-1"),
    "budget NaN": option("budget_usd", math.nan, "nan", "finite"),
    "budget infinite": option("budget_usd", math.inf, "inf", "finite"),
    "budget that is no amount": option("budget_usd", "much", "'much'", "5.00"),
    "budget True": option("budget_usd", True, "True"),
    "cache mode": option("cache", "yes", "'yes'", "use, refresh, off"),
    "on_interrupt": option("on_interrupt", "stop", "'stop'", "restart, raise"),
    "stop that is empty": option("stop", [""], "none of them empty"),
    "stop with NUL": option("stop", ["a\0"], "NUL", hint="replace"),
    "feature of two lines": option("feature", "a\nb", "one line"),
    "user that is a number": option("user", 5, "5", "text"),
    "system with NUL": option("system", "a\0", "NUL", hint="replace"),
    "system and a system message": Bad(
        [{"role": "system", "content": "a"}, *USER], {"system": "b"}, INVALID, ("system=", "messages"), "Keep one"
    ),
    "tools that are text": option("tools", "weather", "'weather'", "mappings"),
    "tools that are no JSON": option("tools", [{"type": "function", "f": print}], "tools=", "JSON", hint="dicts"),
    "tools with a set": option("tools", [{"a": {1}}], "tools=", "set"),
    "tools with a lone surrogate": option("tools", [{"description": "\ud800"}], "U+D800"),
    "response_format that is text": option("response_format", "json", "'json'", "mapping"),
    "response_format that is no JSON": option("response_format", {"type": object()}, "response_format=", "JSON"),
    "extra that overrides the model": option("extra", {"model": "gpt-9"}, "'model'", hint="model="),
    "extra that overrides the messages": option("extra", {"messages": []}, "'messages'", hint="prompt"),
    "extra that streams": option("extra", {"stream": True}, "'stream'", hint="stream("),
    "extra with n": option("extra", {"n": 3}, "3", "one answer", hint="sample="),
    "extra that is no JSON": option("extra", {"a": b"x"}, "extra=", "bytes"),
    "extra with NaN": option("extra", {"a": math.nan}, "extra=", hint="finite"),
    "extra that is a list": option("extra", [1], "extra", "mapping"),
    "logprobs": option("logprobs", 100, "at most 20"),
    "tags": option("tags", [""], "tags"),
    # schema and check
    "schema that is a number": Bad("hello", {"schema": 5}, SCHEMA, ("5",), "JSON Schema"),
    "schema that is text": Bad("hello", {"schema": "name"}, SCHEMA, ("'name'",), "JSON Schema"),
    "schema that is a list": Bad("hello", {"schema": [int]}, SCHEMA, ("list",), "list[int]"),
    "schema that is a function": Bad("hello", {"schema": print}, SCHEMA, ("print",), ""),
    "schema of a class without fields": Bad("hello", {"schema": NoSchema}, SCHEMA, ("NoSchema",), ""),
    "schema of an unknown type": Bad("hello", {"schema": {"type": "nonsense"}}, SCHEMA, ("nonsense",), ""),
    "schema that is no JSON": Bad("hello", {"schema": {"type": int}}, SCHEMA, ("no JSON",), ""),
    "check that is no function": option("check", 5, "5", "function"),
    "async check": option("check", async_check, "async_check", "async", hint="plain function"),
    "async check, partial": option("check", functools.partial(async_check), "partial", "async", hint="plain function"),
    "async check, callable": option("check", AsyncChecker(), "AsyncChecker", "async", hint="plain function"),
    # models
    "no model id": Bad("hello", {"model": "gpt-4o-mini"}, UNKNOWN, ("'gpt-4o-mini'", "<endpoint or provider>/<model>"), "openai/"),
    "unknown endpoint": Bad("hello", {"model": "opnai/gpt-4o"}, UNKNOWN, ("'opnai'",), "Did you mean openai/gpt-4o?"),
    "nobody's endpoint": Bad("hello", {"model": "zzzz/m"}, UNKNOWN, ("'zzzz'",), "sim/small"),
    "unknown simulated model": Bad("hello", {"model": "sim/smal"}, UNKNOWN, ("smal",), "small"),
    "unknown fault": Bad("hello", {"model": "sim/small?fault=flood"}, UNKNOWN, ("flood",), ""),
    "empty model": Bad("hello", {"model": ""}, INVALID, ("model",), ""),
    "empty list of models": Bad("hello", {"model": []}, INVALID, ("model= is an empty list",), "Name a model"),
    "model that is a number": Bad("hello", {"model": 4}, INVALID, ("model", "4"), ""),
    "second rung unknown": Bad("hello", {"model": ["sim/small", "nobody/m"]}, UNKNOWN, ("nobody",), ""),
}


@pytest.fixture(scope="module", params=["ask", "aask", "stream", "cache off"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door, its client, which outlives everything that is refused at it, and the provider behind."""
    fake = FakeProvider(strict=True)
    with fake_client(tmp_path_factory.mktemp("home"), fake) as client:
        yield Door(request.param, client, fake)


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, door: Door) -> None:
    """Every door refuses it with the same error, that names the value and says what to do; nothing is sent, nothing is open."""
    case, client, fake = CASES[name], door.client, door.fake
    options = case.options if door.name != "cache off" else {"cache": "off", **case.options}
    sent, known = fake.calls, {row.call_id for row in rows(client)}
    with pytest.raises(case.error) as caught:
        ask(client, door.name, case.prompt, options)
    error = caught.value
    assert isinstance(error, errors.NbllmError)
    for part in case.says:
        assert part in error.summary, error
    assert case.hint in error.hint, error
    assert "\n" not in error.summary
    assert len(str(error)) < 1200
    assert fake.calls == sent
    refused = [row for row in rows(client) if row.call_id not in known]
    assert all(row.status.value == "failed" and not client.ledger.attempts(row.call_id) for row in refused)
    fake.enqueue("fine")
    assert client.ask(f"a good one after {name}", model="sim/small").text == "fine"


def ask(client: Client, door: str, given: Any, options: dict[str, Any]) -> object:
    """Ask by a door."""
    if door == "aask":

        async def main() -> object:
            return await client.aask(given, **options)

        return asyncio.run(main())
    return list(client.stream(given, **options)) if door == "stream" else client.ask(given, **options)


KEYS = {
    "a provider's key for another host": (
        Endpoint(base_url="https://gateway.example/v1", api_key_env="OPENAI_API_KEY"), errors.KeyNotAllowed, "OPENAI_API_KEY",
    ),
    "a provider's key without encryption": (
        Endpoint(base_url="http://api.openai.com/v1"), errors.KeyNotAllowed, "unencrypted",
    ),
    "a key that is not set": (
        Endpoint(base_url="https://gateway.example/v1", api_key_env="NO_SUCH_KEY"), errors.AuthenticationFailed, "NO_SUCH_KEY",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
@offline()
def test_keys(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that may not go there is not sent; the error names the variable, never the key; the row says that nothing was sent."""
    secret = "sk-proj-" + "a1B2c3D4" * 5
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    endpoint, kind, part = KEYS[name]
    with Client(home=tmp_path, endpoints={"gate": endpoint}, model="gate/m") as client:
        with pytest.raises(kind) as caught:
            client.ask("hello")
        assert part in str(caught.value)
        assert "Nothing was sent" in str(caught.value)
        assert secret not in str(caught.value) + repr(caught.value)
        (row,) = rows(client)
        assert (row.status.value, row.error) == ("failed", kind.__name__)
        assert [(a.sent, a.cost_usd) for a in client.ledger.attempts(row.call_id)] in ([], [(False, 0)])


CLIENTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "unknown setting": (lambda home: Client(home=home, modle="sim/small"), ("modle", "Did you mean model?")),
    "budget that is negative": (lambda home: Client(home=home, budget_session_usd=-1), ("budget_session_usd", "-1")),
    "budget NaN": (lambda home: Client(home=home, budget_session_usd=math.nan), ("nan",)),
    "deadline 0": (lambda home: Client(home=home, deadline_s=0), ("deadline_s", "greater than 0")),
    "ladder of numbers": (lambda home: Client(home=home, ladder=[1]), ("ladder",)),
    "option of a call": (lambda home: Client(home=home, schema=int), ("schema", "option of a call")),
    "endpoint that is a dict": (lambda home: Client(home=home, endpoints={"a": {"base_urll": ""}}), ("base_urll", "base_url?")),
    "endpoint with a bad address": (lambda _: Endpoint(base_url="ftp://x"), ("ftp://x", "http")),
    "endpoint with a query": (lambda _: Endpoint(base_url="http://x/v1?key=abc"), ("query",)),
    "endpoint with credentials": (lambda _: Endpoint(base_url="http://me:secret@x/v1"), ("credentials",)),
    "endpoint whose variable is a key": (lambda _: Endpoint(base_url="http://x", api_key_env="sk-ab c"), ("environment variable",)),
    "endpoint with a negative price": (lambda _: Endpoint(base_url="http://x", output_usd_per_mtok=-1), ("negative", "-1")),
    "endpoint with rpm 0": (lambda _: Endpoint(base_url="http://x", rpm=0), ("rpm", "0")),
    "endpoint with rpm True": (lambda _: Endpoint(base_url="http://x", rpm=True), ("rpm", "True")),
    "endpoint with a header of two lines": (lambda _: Endpoint(base_url="http://x", headers={"A": "b\r\nC: d"}), ("A", "line")),
    "home that is a number": (lambda _: Client(home=5), ("home", "5")),
}  # fmt: skip


@pytest.mark.parametrize("name", CLIENTS)
def test_clients(name: str, tmp_path: Path) -> None:
    """A client or endpoint that cannot work is refused when it is made, by name and value, before a file is touched."""
    make, says = CLIENTS[name]
    with pytest.raises(errors.ConfigurationError) as caught:
        make(tmp_path / "home")
    for part in says:
        assert part in str(caught.value)
    assert not (tmp_path / "home").exists()


FILES = {
    "typo in a key": ("[budget]\nsession_usd = 5\n\nmodle = 'x'\n", 4, "modle"),
    "typo at the top": ("# mine\nmodell = 'sim/small'\n", 2, "Did you mean model?"),
    "broken TOML": ("model = 'sim/small'\nladder = [\n", 2, "no valid TOML"),
    "a wrong type": ("deadline_s = 'soon'\n", 1, "deadline_s"),
    "a value out of range": ("model = 'sim/small'\n\ndeadline_s = 0\n", 3, "greater than 0"),
    "a key in an endpoint": ("[endpoints.lab]\nbase_url = 'http://x/v1'\napi_key = 'sk-12345'\n", 3, "never keys"),
    "an endpoint without address": ("[endpoints.lab]\nrpm = 5\n", 1, "base_url"),
}


@pytest.mark.parametrize("name", FILES)
def test_settings_files(name: str, tmp_path: Path) -> None:
    """A settings file with a mistake is refused with its path and line; the key that stood in it is not repeated."""
    text, line, part = FILES[name]
    (tmp_path / "nbllm.toml").write_text(text)
    with pytest.raises(errors.SettingsFileError) as caught:
        Settings.load(start=tmp_path, environ={})
    assert caught.value.path == str(tmp_path / "nbllm.toml")
    assert caught.value.line in (line, line + 1)
    assert part in str(caught.value)
    assert f"line {caught.value.line}" in str(caught.value)
    assert "sk-12345" not in str(caught.value)


def test_variables(tmp_path: Path) -> None:
    """A misspelt or bad NBLLM_ variable is refused by name."""
    with pytest.raises(errors.ConfigurationError, match="NBLLM_MODLE") as caught:
        Settings.load(start=tmp_path, environ={"NBLLM_MODLE": "x"})
    assert "NBLLM_MODEL" in caught.value.hint
    with pytest.raises(errors.ConfigurationError, match=r"NBLLM_DEADLINE_S: .*'soon'"):
        Settings.load(start=tmp_path, environ={"NBLLM_DEADLINE_S": "soon"})


def test_what_is_allowed(tmp_path: Path) -> None:
    """What looks odd and makes sense goes through as it is: emoji, other mappings, tool calls and their messages."""
    fake = FakeProvider()
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        UserDict({"role": "user", "content": "Wie geht's? 👩‍👩‍👧‍👦 \u202e"}),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": ""},
        {"role": "user", "content": ({"type": "text", "text": "and?"},)},
    ]
    with fake_client(tmp_path, fake) as client:
        client.ask(messages, extra={"n": 1, "deep": {"a": [1, 2.5, None, True]}}, tools=[])
        messages.append({"role": "user", "content": "later"})
    (wire,) = fake.requests
    assert wire.content.messages == (
        {"role": "user", "content": "Wie geht's? 👩‍👩‍👧‍👦 \u202e"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "and?"}]},
    )
    assert wire.content.extra == {"n": 1, "deep": {"a": [1, 2.5, None, True]}}


def test_a_system_prompt_of_the_settings_gives_way(tmp_path: Path) -> None:
    """A default system prompt is used for plain prompts; a conversation that brings its own keeps that one."""
    fake = FakeProvider()
    with fake_client(tmp_path, fake, system="Be brief.") as client:
        client.ask("hello")
        client.ask([{"role": "system", "content": "Be long."}, *USER])
    assert [wire.content.messages[0]["content"] for wire in fake.requests] == ["Be brief.", "Be long."]
