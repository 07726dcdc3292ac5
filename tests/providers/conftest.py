from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nbllm.providers.litellm import load


@pytest.fixture(scope="module")
def litellm() -> Any:
    """The module of that name, imported once, as the provider imports it."""
    return asyncio.run(load())
