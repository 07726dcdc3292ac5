"""A home that is deleted while a client uses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.errors import StorageError


def test_a_home_that_vanished_is_called_gone_and_a_new_client_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """usage() says that the folder is gone and what to do, not that a disk is to be checked; doing it helps."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    home = tmp_path / "home"
    with Client(home=home) as client:
        client.ask("Summarise: It rained. The river rose.", model="sim/small")
        shutil.rmtree(home)
        with pytest.raises(StorageError, match=r"is gone.*\n.*make a new Client") as caught:
            client.usage()
        assert str(home) in str(caught.value)
        assert "disk" not in str(caught.value)
    with Client(home=home) as client:
        client.ask("Summarise: It rained. The river rose.", model="sim/small")
        assert "1" in str(client.usage("total"))
