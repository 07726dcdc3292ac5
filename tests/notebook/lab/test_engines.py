"""Model servers in the panel: from the moment that one begins to start until it is gone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nbllm.engines import EngineEvent, plan_launch, start
from nbllm.engines.engine import shown_as_starting
from nbllm.errors import EngineFailed
from nbllm.notebook.lab.bridge import Bridge
from tests.notebook.lab.fakes import Shell

pytestmark = pytest.mark.slow


def test_an_engine_is_shown_as_starting_before_it_is_ready(bridge: Bridge, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything was asked of a model too, and at once: not when somebody next happens to look."""
    del bridge
    monkeypatch.setattr("nbllm.notebook.lab.desk.IDLE_S", 3600.0)
    page = shell.kernel.page("a")
    page.until(lambda: page.state is not None)

    def engines() -> dict[str, Any]:
        return {line["name"]: line["engine"] and line["engine"]["state"] for line in page.state["endpoints"]}

    def hold(event: EngineEvent) -> None:
        if event.stage == "launched":
            page.until(lambda: engines() == {"held": "starting"})

    with ThreadPoolExecutor(1) as pool:
        engine = pool.submit(lambda: start(plan_launch("sim", "small", name="held"), hold)).result(60)
    try:
        page.until(lambda: engines() == {"held": "ready"})
    finally:
        engine.stop()
    page.until(lambda: engines() == {})


def test_an_engine_that_does_not_start_goes_again(bridge: Bridge, shell: Shell) -> None:
    """A start that fails leaves nothing behind."""
    del bridge
    page = shell.kernel.page("a")
    page.until(lambda: page.state is not None)

    def fail(_: EngineEvent) -> None:
        page.until(lambda: page.state["endpoints"])
        raise EngineFailed("enough")

    with pytest.raises(EngineFailed):
        start(plan_launch("sim", "small", name="never"), fail)
    page.until(lambda: page.state["endpoints"] == [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_during_a_start_leaves_it_in_peace() -> None:
    """Its list is empty, and the end of the block there is no error."""
    code = 1
    child = None
    try:
        with shown_as_starting("lab"):
            child = os.fork()
        code = 0
    finally:
        if child == 0:
            os._exit(code)
    assert child is not None
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
