"""One SQLite file for the tests of this folder, and what its user was told."""

from __future__ import annotations

import pytest

from nbllm.storage.home import Home
from nbllm.storage.sqlite import Database
from tests.storage.one_table import one_table


class Trouble(list):
    """What the user was told."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def told() -> Trouble:
    return Trouble()


@pytest.fixture
def database(tmp_path, told):
    home = Home(tmp_path / "home")
    database = Database(home, "t.db", migrations=(one_table,), on_trouble=told)
    yield database
    database.close()
    home.close()
