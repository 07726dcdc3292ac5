from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from nbllm.providers.litellm import load


@pytest.fixture(scope="module")
def litellm() -> Any:
    """The module of that name, imported once, as the provider imports it."""
    return asyncio.run(load())


@pytest.fixture(scope="module")
def swept() -> Iterator[None]:
    """What LiteLLM leaves is collected here, not in the next file's tests, which fail on a socket that is left open."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
