"""What the doors tell people: their signature, their help, and what they say to an option by position."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm import Client
from nbllm.errors import InvalidRequest
from nbllm.settings import CallOptions
from nbllm.settings.tables import CALL_OPTIONS

DOORS = ("ask", "aask", "stream", "astream", "embed", "aembed")


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("owner", [nbllm, Client])
def test_help_names_every_option_with_its_default(owner: Any, name: str) -> None:
    """`ask?` and Tab know each option that the door takes, its default, and what it does."""
    function = getattr(owner, name)
    shown = {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert shown.keys() >= {"model", "deadline_s", "cache", "feature"}
    assert all(CALL_OPTIONS[option].default == default for option, default in shown.items())
    text = " ".join(function.__doc__.split())
    assert all(f"{option}" in text and " ".join(CALL_OPTIONS[option].help.split()) in text for option in shown)
    if "embed" not in name:
        assert shown.keys() == CallOptions.__annotations__.keys()
    else:
        assert "schema" not in shown


@pytest.mark.parametrize("name", DOORS)
def test_an_option_by_position_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    """ask("hi", "sim/small") says how the model is given, before anything is opened or sent."""
    with Client(home=tmp_path / "home") as client:
        door: Any = getattr(client, name)

        async def call() -> None:
            await door(["hi"] if "embed" in name else "hi", "sim/small")

        with pytest.raises(InvalidRequest, match=r"by position.*Nothing was sent\.\nGive options by name: model='sim/small'"):
            asyncio.run(call())
    assert not (tmp_path / "home").exists()
