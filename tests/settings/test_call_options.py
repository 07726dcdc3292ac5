"""The typed keywords of a call are the table's, one to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, get_type_hints

import pytest

from nbllm import CallOptions
from nbllm.asking import _CHAT_ONLY
from nbllm.settings import CALL_OPTIONS, EmbedOptions

KINDS: dict[str, Any] = {
    "text": str, "texts": str | Sequence[str], "number": float, "integer": int, "money": Decimal | float | str,
    "mapping": Mapping[str, Any], "mappings": Sequence[Mapping[str, Any]], "logprobs": bool | int, "flag": bool,
}  # fmt: skip
CODE: dict[str, Any] = {"schema": Any, "check": Callable[[Any], object]}


def test_names_are_the_tables() -> None:
    """No option is missing and none is too many; every one may be left out. Embeddings have those that they do not refuse."""
    assert set(get_type_hints(CallOptions)) == set(CALL_OPTIONS)
    assert not CallOptions.__required_keys__
    assert set(get_type_hints(EmbedOptions)) == set(CALL_OPTIONS) - set(_CHAT_ONLY) - {"on_interrupt"}


@pytest.mark.parametrize("name", CALL_OPTIONS)
def test_types_are_the_tables(name: str) -> None:
    """Each type follows from the option's kind, its choices, and whether None is a value."""
    option = CALL_OPTIONS[name]
    expected = Literal[option.choices] if option.kind == "choice" else CODE[name] if option.kind == "code" else KINDS[option.kind]
    if option.optional and expected is not Any:
        expected = expected | None
    assert get_type_hints(CallOptions)[name] == expected
