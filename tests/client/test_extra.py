"""What `extra` may hold: fields of the body that nbllm does not answer for, nothing that would pass its bounds by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, errors
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client

NAMED = {
    "max_tokens": 10**8, "max_completion_tokens": 10**8, "temperature": 0.5, "top_p": 0.5, "seed": 1, "stop": ["a"],
    "tools": [{"type": "function"}], "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 3,
}  # fmt: skip


@pytest.mark.parametrize("within", ["extra", "extra_body"])
@pytest.mark.parametrize("name", NAMED)
def test_what_has_a_keyword_is_given_by_it(name: str, within: str, tmp_path: Path) -> None:
    """A field with a keyword of its own is refused in extra, with the keyword in the hint: key, budget and wire all see it."""
    fake = FakeProvider()
    extra: dict[str, Any] = {name: NAMED[name]} if within == "extra" else {"extra_body": {name: NAMED[name]}}
    keyword = {"max_completion_tokens": "max_tokens", "top_logprobs": "logprobs"}.get(name, name)
    with fake_client(tmp_path, fake) as client:
        for options in ({}, {keyword: None}):
            with pytest.raises(errors.InvalidRequest, match=name) as caught:
                client.ask("hello", extra=extra, **options)
            assert f"{keyword}=" in caught.value.hint
        assert not fake.requests


def test_a_cent_bounds_what_is_sent(tmp_path: Path) -> None:
    """Under a budget of one cent no limit on tokens goes out that was not reserved for, whichever way it is asked for."""
    with Client(home=tmp_path, **{"budget.session_usd": "0.01"}) as client:
        with pytest.raises(errors.InvalidRequest, match="max_tokens"):
            client.ask("hello", model="sim/large", extra={"max_tokens": 10**8})
        client.configure(extra={"max_tokens": 10**8})
        with pytest.raises(errors.InvalidRequest, match="max_tokens"):
            client.ask("hello", model="sim/large")
        assert all(line.spent_usd == 0 for line in client.budget_lines())


@pytest.mark.parametrize("name", ["n", "best_of"])
def test_several_answers_are_refused(name: str, tmp_path: Path) -> None:
    """Each answer costs; more than one a request is refused at any depth, exactly one is not."""
    fake = FakeProvider()
    with fake_client(tmp_path, fake) as client:
        for extra in ({name: 2}, {name: "2"}, {"extra_body": {name: 3}}):
            with pytest.raises(errors.InvalidRequest, match=name) as caught:
                client.ask("hello", extra=extra)
            assert "sample=" in caught.value.hint
        client.ask("hello", extra={name: 1})
        assert len(fake.requests) == 1


def test_embeddings_take_what_is_theirs(tmp_path: Path) -> None:
    """The size of vectors passes; the model, a stream and several answers do not."""
    with fake_client(tmp_path) as client:
        for extra in ({"model": "x"}, {"stream": True}, {"n": 2}, {"max_tokens": 5}):
            with pytest.raises(errors.InvalidRequest):
                client.embed(["a"], extra=extra)
        client.embed(["a"], extra={"dimensions": 8})
