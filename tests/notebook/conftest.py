from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import get_ipython as start_shell

from nbllm.notebook import extension
from tests.notebook.fakes import FakeClient, Publisher


@pytest.fixture(scope="session")
def one_shell() -> Any:
    """One IPython per process, as IPython wants it."""
    return start_shell() or InteractiveShell.instance()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The current client, a fake."""
    fake = FakeClient()
    monkeypatch.setattr("nbllm.notebook.extension.current_client", lambda: fake)
    return fake


@pytest.fixture
def shell(one_shell: Any, client: FakeClient) -> Iterator[Any]:
    """A terminal IPython with the extension loaded and an empty namespace."""
    one_shell.reset(new_session=False)
    extension.load_ipython_extension(one_shell)
    yield one_shell
    extension.unload_ipython_extension(one_shell)


@pytest.fixture
def publisher(shell: Any, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """What a kernel would publish: the shell passes for one."""
    fake = Publisher()
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    monkeypatch.setattr(shell, "display_pub", fake)
    return fake
