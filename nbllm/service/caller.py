"""Who asks a service."""

from __future__ import annotations

from typing import NamedTuple

from nbllm.service.configuration import Tier


class Caller(NamedTuple):
    """Who asks: the id of a key (never the key) and what its tier allows."""

    key_id: str
    tier: Tier
