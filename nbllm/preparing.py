"""What a face does to the process's client before its first use. Apart from the client, because a face is loaded long before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PREPARE: list[Callable[[Any], object]] = []
"""Called with the default client of the process when that is made: by `nbllm.ask` as by a magic, whichever comes first."""
