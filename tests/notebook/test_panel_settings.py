"""%llm_panel latency and routing, on a real client, without a browser; Apply writes what it says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.calibration import RoutePlan
from nbllm.client import Client
from nbllm.notebook.panel import Panel
from nbllm.notebook.panel_latency import LatencyContent, latency_content
from nbllm.panels.examples import latency_example, routing_example
from nbllm.settings import Settings
from nbllm.settings.strategies import Learned
from nbllm.testing import FakeProvider


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A real client in an empty project; every sim model answers at once."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with Client(home=tmp_path / "home", settings=Settings(), providers={"simulated": FakeProvider()}) as made:
        monkeypatch.setattr("nbllm.notebook.extension.current_client", lambda: made)
        yield made


def named_plan() -> RoutePlan:
    """A plan that knows its models."""
    import dataclasses

    return dataclasses.replace(routing_example().plan, weak="sim/small", strong="sim/large", embedder="sim/small")


def test_latency_without_calls_is_a_simulated_example(shell: Any, client: Client) -> None:
    """It says so, and how to get calls; there is nothing to apply."""
    view = shell.run_line_magic("llm_panel", "latency")
    assert "SIMULATED" in repr(view)
    assert "Ask something with %%llm" in " ".join(repr(view).split())
    assert Panel(view.content).apply.disabled


def test_the_sliders_of_latency_set_both_limits(shell: Any, client: Client) -> None:
    """Moving changes picture and numbers; Apply writes both into a new nbllm.toml and puts them in force."""
    client.ask("x", model="sim/small")
    panel = Panel(latency_content(client))
    assert panel.values == (300.0, 60.0)
    first = panel.image.value
    for slider in panel.sliders:
        slider.value = slider.options[0][1]
    assert panel.image.value != first
    deadline_s, ttft_s = panel.values
    panel.apply.click()
    assert f"+deadline_s = {deadline_s}" in unescape(panel.said.value)
    assert tomllib.loads(Path("nbllm.toml").read_text()) == {"deadline_s": deadline_s, "ttft_s": ttft_s}
    assert (client.settings.call["deadline_s"], client.settings.call["ttft_s"]) == (deadline_s, ttft_s)


def test_what_was_cut_is_said(client: Client) -> None:
    """The panel says how many calls were cut and that they do not count as fast; beyond the cut it says a range, not a number."""
    content = LatencyContent(client, latency_example(300.0, 60.0))
    text = " ".join(str(content.numbers((60.0, 2.0))).split())
    assert "between 0% to" in text
    content._data = content._data.__class__(**{**_fields(content._data), "example": False})
    assert "Kaplan-Meier" in " ".join(content._notes())


def _fields(data: Any) -> dict[str, Any]:
    return {name: getattr(data, name) for name in data.__dataclass_fields__}


def test_routing_without_a_route_is_a_simulated_example(shell: Any, client: Client) -> None:
    """It says how to get one; a name that is none is refused with what there is."""
    view = shell.run_line_magic("llm_panel", "routing")
    assert "SIMULATED" in repr(view)
    assert "calibrate_route" in repr(view)
    assert Panel(view.content).apply.disabled
    with pytest.raises(UsageError, match="no learned route"):
        shell.run_line_magic("llm_panel", "routing nothing")
    with pytest.raises(UsageError, match="takes no"):
        shell.run_line_magic("llm_panel", "routing a b")


def test_a_plan_in_a_variable_becomes_a_route(shell: Any, client: Client) -> None:
    """Apply writes the plan beside nbllm.toml and the whole route into it, and the session can use it at once."""
    shell.user_ns["cheap"] = named_plan()
    panel = Panel(shell.run_line_magic("llm_panel", "routing cheap").content)
    panel.sliders[0].value = 0.25
    panel.apply.click()
    assert "Applied" in panel.said.value
    table = tomllib.loads(Path("nbllm.toml").read_text())["routes"]["cheap"]
    assert table == {
        "strategy": "learned", "plan": "nbllm-route-cheap.json", "embedder": "sim/small",
        "labels": {"weak": "sim/small", "strong": "sim/large"}, "otherwise": "sim/large", "strong_share": 0.25,
    }  # fmt: skip
    assert RoutePlan.from_json(Path("nbllm-route-cheap.json").read_text()).chosen_share == 0.25
    for settings in (client.settings, Settings.load(start=Path.cwd(), environ={})):
        spec = settings.routes["cheap"]
        assert isinstance(spec, Learned)
        assert spec.strong_share == 0.25
        assert Path(spec.plan).read_text() == Path("nbllm-route-cheap.json").read_text()


def test_a_route_of_the_settings_gets_another_share(shell: Any, client: Client) -> None:
    """The panel of a route in nbllm.toml starts at its share and changes that line alone."""
    Path("plan.json").write_text(named_plan().to_json(), encoding="utf-8")
    text = (
        '[routes.cheap]  # mine\nstrategy = "learned"\nplan = "plan.json"\nembedder = "sim/small"\n'
        'labels = { weak = "sim/small", strong = "sim/large" }\notherwise = "sim/large"\nstrong_share = 0.4 # for now\n'
    )
    Path("nbllm.toml").write_text(text, encoding="utf-8")
    client.configure(routes={"cheap": Settings.load(start=Path.cwd(), environ={}).routes["cheap"]})
    panel = Panel(shell.run_line_magic("llm_panel", "routing").content)
    assert panel.values == (0.4,)
    panel.sliders[0].value = 0.1
    panel.apply.click()
    assert Path("nbllm.toml").read_text(encoding="utf-8") == text.replace("0.4", "0.1")
    spec = client.settings.routes["cheap"]
    assert isinstance(spec, Learned)
    assert spec.strong_share == 0.1


def test_a_plan_that_names_no_models_is_shown_and_not_applied(shell: Any, client: Client) -> None:
    """What cannot be written is said, with what to do."""
    import dataclasses

    shell.user_ns["plan"] = dataclasses.replace(named_plan(), weak="")
    view = shell.run_line_magic("llm_panel", "routing plan")
    assert "weak=MODEL" in repr(view)
    assert Panel(view.content).apply.disabled
