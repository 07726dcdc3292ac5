"""Model servers in the panel: from the moment that one begins to start until it is gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nbllm.engines import EngineEvent, plan_launch, start
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
