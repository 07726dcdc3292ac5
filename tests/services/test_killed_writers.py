"""Writers that are killed, a hundred times: what they acknowledged is there (make test does the same ten times)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.storage.processes import kill_writers


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 is POSIX's")
def test_kill_9_of_four_writers_a_hundred_times(tmp_path: Path) -> None:
    """No acknowledged row is lost, nothing wrong read, no orphan file, no budget too low; every ten cycles all is checked."""
    kill_writers(tmp_path / "home", 100, check_every=10)
