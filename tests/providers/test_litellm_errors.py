"""What becomes of LiteLLM's errors: each of its classes is one of our kinds."""

from __future__ import annotations

from typing import Any

import pytest

from nbllm import errors
from nbllm.providers.failures import Where
from nbllm.providers.litellm_failures import TABLE, causes, translate
from tests.providers.test_litellm_faults import KEY

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own deprecations and sockets; see test_litellm_faults


WHERE = Where("anthropic/m", "api.anthropic.com", (KEY,))


def made(litellm: Any, name: str) -> BaseException:
    """An error of LiteLLM's class of that name, without running its constructor (their signatures all differ)."""
    kind = getattr(litellm.exceptions, name)
    error: BaseException = kind.__new__(kind)
    error.args = (f"litellm.{name}: it happened, key {KEY}",)
    error.message = error.args[0]  # type: ignore[attr-defined]  # as LiteLLM sets it
    return error


def test_every_class_of_litellm_is_in_the_table(litellm: Any) -> None:
    """A new class in a later release needs a decision: this fails until it is mapped."""
    own = {
        name
        for name, kind in vars(litellm.exceptions).items()
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == "litellm.exceptions"
    }
    assert own
    assert own - {name for name, _ in TABLE} == set()


def test_the_table_is_most_specific_first(litellm: Any) -> None:
    """No row stands behind one of its base classes, where it could never be reached."""
    names = [name for name, _ in TABLE]
    for place, name in enumerate(names):
        kind = getattr(litellm.exceptions, name, None)
        if kind is not None:
            earlier = {base.__name__ for base in kind.__mro__[1:]} & set(names[:place])
            assert not earlier, (name, earlier)


@pytest.mark.parametrize(("name", "kind"), TABLE, ids=[name for name, _ in TABLE])
def test_each_class_becomes_its_kind(litellm: Any, name: str, kind: type[errors.AttemptFailed]) -> None:
    """Without an HTTP answer or a cause the table decides; the key is not in the message, nor LiteLLM's prefixes."""
    error = translate(made(litellm, name), WHERE, began=False)
    assert type(error) is kind
    assert KEY not in str(error)
    assert "it happened" in str(error)
    assert "litellm." not in str(error)


def test_mid_stream_everything_is_an_interruption(litellm: Any) -> None:
    """Once a piece was told, what broke it off does not matter: the partial counts."""
    for name, _ in TABLE:
        assert type(translate(made(litellm, name), WHERE, began=True)) is errors.StreamInterrupted


def test_an_error_of_no_known_class() -> None:
    """A bug inside LiteLLM is a failure of the attempt, not of the program."""
    error = translate(AttributeError("'NoneType' object has no attribute 'x'"), WHERE, began=False)
    assert type(error) is errors.ServerFailed


def test_a_missing_package_is_named() -> None:
    """Vertex without google-auth: what to install, and that nothing was sent."""
    outer = RuntimeError("APIConnectionError: No module named 'google'")
    outer.__cause__ = ModuleNotFoundError("No module named 'google'", name="google")
    error = translate(outer, WHERE, began=False)
    assert type(error) is errors.ConfigurationError
    assert "pip install google-auth" in str(error)


def test_a_circle_of_causes_ends() -> None:
    """Errors that name each other as cause do not hang the translation."""
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert list(causes(one)) == [one, two]
