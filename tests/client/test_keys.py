"""Cache keys: whatever can change an answer changes the key, nothing else does, and every process makes the same one."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from pydantic import BaseModel, create_model

import nbllm
from nbllm import Endpoint, Settings
from nbllm.asking import chat_request, embed_request
from nbllm.core.fingerprint import fingerprint
from nbllm.core.messages import Chat, Embed, Options, Rung
from nbllm.providers.catalog import Catalog
from nbllm.providers.wire import request_bytes
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client

RUNG = Catalog({"lab": Endpoint(base_url="http://127.0.0.1:8000/v1")}, {}).rung("lab/m")
CHAT = Chat(
    messages=(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "ada", "content": "What is the weather in Bern?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 21 degrees"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            ],
        },
    ),
    temperature=0.5,
    max_tokens=100,
    top_p=0.9,
    seed=1,
    stop=("END", "STOP"),
    tools=(
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "The weather",
                "strict": True,
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "day": {"type": "integer", "minimum": 0}},
                    "required": ["city"],
                },
            },
        },
        {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}},
    ),
    response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "required": ["x"]}}},
    logprobs=2,
    json_schema={
        "title": "City",
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 10}, "people": {"type": "integer"}},
        "required": ["name"],
        "additionalProperties": False,
    },
    extra={"top_k": 40, "user": "u-1", "deep": {"list": [1, 2.5, None, True, "x"], "flag": False}},
    sample=1,
    partition="team-a",
)
EMBED = Embed(texts=("one", "two", "three"), extra={"dimensions": 256}, sample=1, partition="team-a")


def strict(value: Any) -> str:
    """A text that differs for everything that differs on the wire: 1, 1.0, True and "1" are four values, order of keys counts."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k!r}:{strict(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(strict, value)) + "]"
    if isinstance(value, msgspec.Struct):
        return strict(asdict(value))
    return f"{type(value).__name__}:{value!r}"


def changes(value: Any) -> Iterator[Any]:
    """Single changes of a JSON value: of the whole, and of each part of it."""
    if value is None:
        yield from ("", 0, False, "null")
    elif isinstance(value, bool):
        yield from (not value, int(value), float(value), str(value), str(value).lower(), None)
    elif isinstance(value, (int, float)):
        yield from (value + 1, -value, value + 0.25, float(value), str(value), bool(value), None, value * 10**6, [value])
    elif isinstance(value, str):
        yield from (value + "x", "x" + value, value + " ", " " + value, value + "\n", value.upper(), value.lower(), value[:-1])
        yield from (
            value + "\u0301",
            value + '"',
            value + "\\",
            value.replace("e", "\u00e9"),
            value.replace("e", "e\u0301"),
            [value],
        )
        yield from (value + "\u200b", value + "\U0001f600", value[::-1], None, "")
    elif isinstance(value, Mapping):
        yield from ({**value, "zz": 1}, {**value, "": None}, {})
        for name in value:
            yield {k: v for k, v in value.items() if k != name}
            yield {(k + "_" if k == name else k): v for k, v in value.items()}
            for part in changes(value[name]):
                yield {**value, name: part}
    else:
        items = list(value)
        yield from ([*items, "zz"], ["zz", *items], [*items, *items], items[::-1], [])
        for place, item in enumerate(items):
            yield items[:place] + items[place + 1 :]
            yield [*items[: place + 1], *items[place:]]
            for part in changes(item):
                yield [*items[:place], part, *items[place + 1 :]]


def changed_fields(content: Any) -> Iterator[Any]:
    """The content with single changes of each field."""
    for field in msgspec.structs.fields(content):
        for value in changes(getattr(content, field.name)):
            yield replace(content, **{field.name: value})


def rungs() -> Iterator[Rung]:
    """Rungs that stand for other models or other places."""
    base_urls = [
        "http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1", "http://127.0.0.1:8000/v2", "https://127.0.0.1:8000/v1",
        "http://localhost:8000/v1", "http://127.0.0.1:8000", "http://127.0.0.1/v1",
    ]  # fmt: skip
    for base_url, model in itertools.product(base_urls, ("m", "m2", "M", "m:free", "other/m")):
        yield Catalog({"lab": Endpoint(base_url=base_url)}, {}).rung(f"lab/{model}")
    yield Catalog({"lab": Endpoint(base_url=base_urls[0], identity="vllm:m@main")}, {}).rung("lab/m")
    yield Catalog({}, {}).rung("sim/small")
    yield Catalog({}, {}).rung("sim/small?seed=2")


def test_a_thousand_single_changes() -> None:
    """Over a thousand requests that differ in one place each, fields, parts, order, types and all, have keys of their own."""
    requests = {strict((content, RUNG.model, RUNG.identity)): (content, RUNG) for content in (CHAT, EMBED)}
    for content in (CHAT, EMBED):
        for changed in changed_fields(content):
            requests.setdefault(strict((changed, RUNG.model, RUNG.identity)), (changed, RUNG))
    for rung in rungs():
        for content in (CHAT, EMBED):
            requests.setdefault(strict((content, rung.model, rung.identity)), (content, rung))
    # None in a field of the request itself means that it is not sent, which has one key however it is said.
    keys = {}
    for name, (content, rung) in requests.items():
        keys.setdefault(fingerprint(content, rung), []).append(name)
    assert len(requests) > 1000
    assert [names for names in keys.values() if len(names) > 1] == []
    assert len(keys) == len(requests)


IN = {
    "messages", "system", "temperature", "max_tokens", "top_p", "seed", "stop", "tools", "response_format", "logprobs", "extra",
    "schema", "sample", "partition", "model",
}  # fmt: skip
OUT = {
    "check", "repairs", "retries", "cache", "ttl_s", "stale_ok_s", "static", "deadline_s", "ttft_s", "idle_s", "attempt_s",
    "on_interrupt", "feature", "user", "budget_usd", "tags", "semantic",
}  # fmt: skip
OTHER: dict[str, Any] = {
    "model": "sim/large", "system": "Be long.", "temperature": 1, "max_tokens": 7, "top_p": 0.5, "seed": 9, "stop": "X",
    "tools": [{"type": "function", "function": {"name": "f"}}], "response_format": {"type": "json_object"}, "logprobs": True,
    "extra": {"top_k": 1}, "schema": {"type": "string"}, "sample": 5, "partition": "p", "check": len, "repairs": 0, "retries": 0,
    "cache": "refresh", "ttl_s": 5, "stale_ok_s": 5, "static": "s", "deadline_s": 5, "ttft_s": 5, "idle_s": 5, "attempt_s": 5,
    "on_interrupt": "raise", "feature": "f", "user": "u", "budget_usd": 1, "tags": ("t",), "semantic": False,
}  # fmt: skip


def test_every_field_is_in_or_out() -> None:
    """Each option of a call, each field of content and Options, is listed as in the key or out of it; nothing is forgotten."""
    assert {"messages", *nbllm.settings.CALL_OPTIONS} == IN | OUT
    assert set(Chat.__struct_fields__) == IN - {"system", "model", "schema"} | {"json_schema"}
    assert set(Embed.__struct_fields__) == {"texts", "extra", "sample", "partition"}
    assert set(Options.__struct_fields__) == OUT | {"schema_type", "watched", "scopes"}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_options_and_the_key(name: str) -> None:
    """An option that is in changes the key, one that is out does not."""
    settings, catalog = Settings(), Catalog({}, {})

    def key(**options: Any) -> str:
        request = chat_request("hello", options, settings, watched=False, on_interrupt="restart")
        return fingerprint(request.content, catalog.rung((request.models or ("sim/small",))[0]))

    assert (key() != key(**{name: OTHER[name]})) == (name in IN)


def test_endpoints_and_the_key() -> None:
    """Prices, limits, keys and the endpoint's own name are out; its address, or the identity that it states, is in."""
    lab = Endpoint(base_url="http://127.0.0.1:8000/v1")

    def key(endpoint: Endpoint, name: str = "lab") -> str:
        return fingerprint(CHAT, Catalog({name: endpoint}, {}).rung(f"{name}/m"))

    same = [
        {"api_key": "sk-" + "a" * 30}, {"api_key_env": "LAB_KEY"}, {"rpm": 5}, {"tpm": 5}, {"max_concurrency": 1},
        {"input_usd_per_mtok": 1, "output_usd_per_mtok": Decimal(2)}, {"context_tokens": 5}, {"max_output_tokens": 5},
        {"base_url": "HTTP://127.0.0.1:8000/v1/"}, {"verify_tls": False},
    ]  # fmt: skip
    assert {key(dataclasses.replace(lab, **change)) for change in same} == {key(lab)}
    assert key(lab, "another") == key(lab)
    moved = {
        key(dataclasses.replace(lab, base_url=url, identity="mine")) for url in ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")
    }
    assert len(moved) == 1
    assert key(lab) not in moved


def test_embeddings_and_the_key() -> None:
    """Texts, their order, sample, partition and extra are in; options are out; a chat with the same words has another key."""
    settings, rung = Settings(), RUNG

    def key(texts: list[str], **options: Any) -> str:
        return fingerprint(embed_request(texts, options, settings).content, rung)

    varied = [key(["a", "b"]), key(["b", "a"]), key(["ab"]), key(["a", "b"], sample=1), key(["a", "b"], partition="p")]
    varied += [key(["a", "b"], extra={"dimensions": 8}), fingerprint(Chat(messages=({"role": "user", "content": "a"},)), rung)]
    assert len(set(varied)) == len(varied)
    assert key(["a"], feature="f", deadline_s=5, cache="refresh", tags="t") == key(["a"])


class City(BaseModel):
    """A schema as a cell defines it."""

    name: str
    people: int


def test_a_schema_is_its_json() -> None:
    """A cell that is run again defines a new class with the same key; another field, or another order of fields, another key."""

    def key(schema: Any) -> str:
        request = chat_request("hello", {"schema": schema}, Settings(), watched=False, on_interrupt="restart")
        return fingerprint(request.content, RUNG)

    again = create_model("City", __doc__=City.__doc__, name=(str, ...), people=(int, ...))
    assert again is not City
    assert key(again) == key(City) == key(City.model_json_schema())
    others = [
        create_model("City", __doc__=City.__doc__, people=(int, ...), name=(str, ...)),
        create_model("City", __doc__=City.__doc__, name=(str, ...), people=(float, ...)),
        create_model("City", __doc__=City.__doc__, name=(str, ...)),
        create_model("Town", __doc__=City.__doc__, name=(str, ...), people=(int, ...)),
        create_model("City", __doc__="Another docstring.", name=(str, ...), people=(int, ...)),
    ]
    assert len({key(City), *map(key, others)}) == 6


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(json_values, json_values)
def test_different_values_have_different_keys(one: Any, other: Any) -> None:
    """Two requests have the same key only if they are the same on the wire."""
    first, second = replace(CHAT, extra={"a": one}), replace(CHAT, extra={"a": other})
    assert (fingerprint(first, RUNG) == fingerprint(second, RUNG)) == (strict(one) == strict(other))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=3), json_values, min_size=2, max_size=4), st.randoms())
def test_order_of_keys_in_a_message(message: dict[str, Any], random: Any) -> None:
    """The order of the keys of a message is nobody's intention and does not count."""
    names = list(message)
    random.shuffle(names)
    shuffled = {name: message[name] for name in names}
    assert fingerprint(Chat(messages=(message,)), RUNG) == fingerprint(Chat(messages=(shuffled,)), RUNG)


_SCRIPT = """
from tests.client import test_keys as t
from nbllm.core.fingerprint import fingerprint
print(fingerprint(t.CHAT, t.RUNG), fingerprint(t.EMBED, t.RUNG))
"""


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_keys_are_the_same_in_every_process(seed: str) -> None:
    """Another process with another hash seed makes the same keys."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(nbllm.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [fingerprint(CHAT, RUNG), fingerprint(EMBED, RUNG)]


class Text(str):
    """A user's own kind of text."""

    __slots__ = ()


def test_texts_of_a_class_of_their_own_are_texts() -> None:
    """A str subclass, such as numpy's, keys and is sent like the text that it is."""
    plain = Chat(messages=({"role": "user", "content": "hello"},), stop=("x",), partition="a")
    own = Chat(messages=({"role": "user", "content": "hello"},), stop=(Text("x"),), partition=Text("a"))
    assert request_bytes(own) == request_bytes(plain)
    assert fingerprint(own, RUNG) == fingerprint(plain, RUNG)


def test_keys_of_released_versions_hold() -> None:
    """Keys do not change by accident: a change here throws away what users have in their caches, and wants a new KEY_VERSION."""
    simple = Chat(messages=({"role": "user", "content": "hello"},))
    assert fingerprint(simple, RUNG) == "677fd2b195226a39219ed4a85e29c30dcfa7b7bb9fa9160f6d70a2164c18c808"
    assert fingerprint(CHAT, RUNG) == "31939d04962e402727f31e6f51d50fe6a1d3dd538a0735341e8137b55f396ae4"
    assert fingerprint(Embed(texts=("hello",)), RUNG) == "6841f8b6f9476668cb56589b497ad03ab88a1745e01412b7eac44e380937a771"


PEERS: dict[str, tuple[Any, Any]] = {
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {}),
    "response format": ({"response_format": {"type": "json_object"}}, {}),
    "schema": ({"schema": {"type": "array"}}, {}),
    "system prompt": ({"system": "Answer in French."}, {"system": "Answer in German."}),
    "temperature": ({"temperature": 0}, {"temperature": 1}),
    "tenant": ({"partition": "tenant-a"}, {"partition": "tenant-b"}),
    "extra body": ({"extra": {"top_k": 1}}, {"extra": {"top_k": 2}}),
    "stop": ({"stop": "\n"}, {}),
    "seed": ({"seed": 1}, {"seed": 2}),
    "logprobs": ({"logprobs": True}, {}),
    "max tokens": ({"max_tokens": 5}, {"max_tokens": 500}),
    "sample": ({"sample": 0}, {"sample": 1}),
}


@pytest.mark.parametrize("name", PEERS)
def test_known_bug_of_peers_key_without(name: str, tmp_path: Path) -> None:
    """Known bug of peers: requests that differ in this share one stored answer. Here each has its own."""
    one, other = PEERS[name]
    fake = FakeProvider("[1]", "[2]")
    with fake_client(tmp_path, fake) as client:
        assert client.ask("hello", **one).text == "[1]"
        assert client.ask("hello", **other).text == "[2]"
        assert client.ask("hello", **one).text == "[1]"
        assert client.ask("hello", **other).text == "[2]"
    assert fake.calls == 2


def test_known_bug_of_peers_key_without_base_url(tmp_path: Path) -> None:
    """Known bug of peers: the same model name on two servers shares one stored answer. Here each has its own."""
    fake = FakeProvider("from one", "from two")
    endpoints = {name: Endpoint(base_url=f"http://{name}.example/v1") for name in ("one", "two")}
    with nbllm.Client(home=tmp_path, endpoints=endpoints, providers={"openai_compatible": fake}) as client:
        for _ in range(2):
            assert client.ask("hello", model="one/m").text == "from one"
            assert client.ask("hello", model="two/m").text == "from two"
    assert fake.calls == 2


def test_a_schema_is_sent_in_its_own_order(tmp_path: Path) -> None:
    """Tools and formats go out with their keys in the order in which they were given: models answer in that order."""
    fake = FakeProvider()
    given_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"why": {}, "answer": {}}}}}
    with fake_client(tmp_path, fake) as client:
        client.ask("hello", response_format=given_format)
    (wire,) = fake.requests
    assert strict(wire.content.response_format) == strict(given_format)
