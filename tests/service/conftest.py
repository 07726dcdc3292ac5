"""What holds for the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One redis-server for all tests of a process; without one on PATH they are skipped, and counted."""
    with running_redis() as server:
        yield server
