"""When LiteLLM is imported, and which releases of it never are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from nbllm import errors
from nbllm.providers.litellm import MALICIOUS_VERSIONS, load, refuse_malicious

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own deprecations and sockets; see test_litellm_faults


def test_it_is_imported_on_first_use_only() -> None:
    """Making the provider, and refusing a request without a key, imports nothing."""
    code = """
import asyncio, sys
from nbllm.errors import AuthenticationFailed
from nbllm.providers.litellm import LiteLLM
from tests.providers.helpers import Heard, catalog_wire
provider = LiteLLM({})
try:
    asyncio.run(provider.send(catalog_wire("anthropic/claude-haiku-4-5", {}), Heard()))
except AuthenticationFailed as exc:
    print(exc.summary)
print("litellm" in sys.modules)
"""
    refused, imported = told(code)
    assert "ANTHROPIC_API_KEY is not set. Nothing was sent." in refused
    assert imported == "False"


@pytest.mark.slow
def test_the_import_asks_nobody_on_the_network() -> None:
    """LiteLLM would fetch its price list; with our settings it does not, and stays quiet."""
    code = """
import asyncio, socket
from nbllm.providers.litellm import load
asked = []
socket.getaddrinfo = lambda *a, **k: asked.append(a) or (_ for _ in ()).throw(OSError("no network"))
module = asyncio.run(load())
print(asked, module.suppress_debug_info, module.disable_hf_tokenizer_download, module.drop_params)
"""
    assert told(code) == ["[] True True False"]


def told(code: str) -> list[str]:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_cancelled_first_call_does_not_break_the_import(litellm: Any) -> None:
    """The import goes on for the next caller; a caller that gives up is not held."""

    async def main() -> None:
        task = asyncio.create_task(load())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await load() is litellm

    asyncio.run(main())


@pytest.mark.parametrize("version", sorted(MALICIOUS_VERSIONS))
def test_malicious_releases_are_refused(version: str) -> None:
    """1.82.7 and 1.82.8 are not imported, and the message says what to do."""
    with pytest.raises(errors.ConfigurationError, match="malicious") as caught:
        refuse_malicious(version)
    assert "change the keys" in str(caught.value)


def test_other_releases_are_not() -> None:
    """Later and earlier ones are fine."""
    refuse_malicious("1.82.6")
    refuse_malicious("1.84.0")
