"""Endpoints that fail, and worlds that meet them."""

from __future__ import annotations

from typing import Any

from nbllm import errors
from nbllm.testing import FakeProvider
from tests.pipeline.world import World, outcome

DEAD = errors.ServerFailed("dead", status=503)
REFUSED = errors.ConnectionFailed("refused", whole_endpoint=True)


def pair(first: FakeProvider, **more: Any) -> World:
    return World(providers={"one": first, "two": FakeProvider()}, **more)


async def opened(world: World, *models: str) -> None:
    """Five failures in a row."""
    for n in range(5):
        await outcome(world.ask(f"open {n}", *(models or ("one/m",)), retries=0))
