"""Parity of an app whose models are chosen by routes: rules choose anew, what cannot be replayed is followed as recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbllm import Client, Settings, ask, flow, use
from nbllm.calibration import fit_labels
from nbllm.core.messages import Embed
from nbllm.core.ports import Recording
from nbllm.core.routing_candidates import left_open
from nbllm.core.routing_facts import facts_of
from nbllm.export.settings_file import settings_file
from nbllm.pipeline.route_plans import read_plan
from nbllm.service.recorded import RecordedRun, recorded_runs
from nbllm.service.replay import NotebookSide, parity
from nbllm.testing import FakeProvider
from tests.pipeline.routing import sure
from tests.pipeline.world import World

pytestmark = pytest.mark.timeout(120)

SMALL, LARGE = "sim/small", "sim/large"
ROUTES = ("rules", "judged", "kind", "fit", "even")
FLOWS = f"""
from nbllm import ask, flow

@flow
def five(text: str) -> list[str]:
    return [ask(text, model=name).rung for name in {ROUTES!r}]
"""
APP = """
from pathlib import Path
from nbllm.service import create_app
import flows

app = create_app(flows=[flows.five], settings=Path(__file__).with_name("settings.toml"))
"""


@flow
def five(text: str) -> list[str]:
    return [ask(text, model=name).rung for name in ROUTES]


def routes(folder: Path) -> dict[str, Any]:
    """One route of each kind; `judged` accepts what is sure, `kind` what a model says, `fit` what a plan says."""
    plan = fit_labels(np.random.default_rng(0).normal(size=(40, 8)), ["easy", "hard"] * 20)
    (folder / "kind.json").write_text(plan.to_json(), encoding="utf-8")
    labels = {"easy": SMALL, "hard": LARGE}
    return {
        "rules": {"strategy": "task", "rules": [{"contains": ["contract"], "use": LARGE}], "otherwise": SMALL},
        "judged": {"strategy": "cascade", "models": [SMALL, LARGE], "accept": "logprob", "min_logprob": -0.5},
        "kind": {"strategy": "classifier", "model": SMALL, "labels": labels, "otherwise": SMALL},
        "fit": {"strategy": "learned", "plan": str(folder / "kind.json"), "embedder": SMALL,
                "labels": labels, "otherwise": SMALL},
        "even": {"strategy": "weighted", "weights": {SMALL: 1, LARGE: 1}, "by": "request"},
    }  # fmt: skip


def notebook_settings(folder: Path) -> Settings:
    """What the notebook's calls are made with."""
    semantic = {"semantic_cache.mode": "shadow", "semantic_cache.embedder": SMALL}
    return Settings().replace_values("test", model=SMALL, routes=routes(folder), **semantic)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Sequence[Recording]]:
    """The notebook's settings, and what it recorded: models that answer surely or not, and a helper that says hard."""
    folder = tmp_path_factory.mktemp("notebook")

    def answers(wire: Any) -> Any:
        if isinstance(wire.content, Embed) or "easy" in str(wire.content):
            return "hard"
        return sure(f"from {wire.rung.id}", -0.1) if "sure" in str(wire.content) else sure(f"from {wire.rung.id}", -2.0)

    settings = notebook_settings(folder)
    simulated = {"simulated": FakeProvider(default=answers)}
    with Client(settings=settings, home=folder / "home", recordings=True, providers=simulated) as client, use(client):
        for text in ("a sure thing", "a doubt", "a contract"):
            five(text)
        return settings, client.recordings.newest(100)


@pytest.fixture
def app(tmp_path: Path, notebook: tuple[Settings, Sequence[Recording]]) -> Path:
    """The app as an export writes it: routes, plan and all."""
    asks = "import nbllm\nfrom nbllm import ask\n" + "\n".join(f"ask('x', model={name!r})" for name in ROUTES)
    made = settings_file(notebook[0], asks)
    assert made.refusals == ()
    for name, text in (("flows.py", FLOWS), ("app.py", APP), ("settings.toml", made.text)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name, content in made.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def recorded(notebook: tuple[Settings, Sequence[Recording]]) -> list[RecordedRun]:
    """The runs, and that their routes did not all go one way."""
    runs = recorded_runs(notebook[1], ["five"])
    assert {call["rung"] for run in runs for call in run.calls} == {SMALL, LARGE}
    return runs


@pytest.mark.parametrize("with_notebook", [True, False])
def test_the_same_routes_are_the_same_and_what_was_followed_is_said(app: Path, notebook: Any, with_notebook: bool) -> None:
    """Against the recordings too, where a cascade made anew would never accept, and a classifier's helper say nothing of use."""
    runs = recorded(notebook)
    report = parity(app, runs, notebook=NotebookSide({"five": five}, notebook[0]) if with_notebook else None)
    assert report.ok, str(report)
    assert (report.runs, report.calls) == (3, 15)
    (note,) = report.notes
    assert "As recorded, not chosen anew: the model in 9 calls of the route fit, judged, kind." in note
    assert ("plans say was compared" in note) == with_notebook
    assert note in str(report)


CHANGES = {
    "routes.judged.min_logprob": ("min_logprob = -0.5", "min_logprob = -9.0", "-9.0"),
    "routes.kind.otherwise": ('otherwise = "sim/small"', 'otherwise = "sim/large"', "sim/large"),
    "semantic_cache.mode": ('mode = "shadow"', 'mode = "off"', "off"),
    "rung": ('"contract"', '"doubt"', LARGE),
    "routes.even.weights": ('"sim/large" = 1', '"sim/large" = 3', "3"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_route_that_the_app_has_otherwise_is_named(app: Path, notebook: Any, what: str) -> None:
    """A cut-off, a ladder, a rule, a weight: what is followed as recorded cannot hide that."""
    before, after, shown = CHANGES[what]
    path = app / "settings.toml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    report = parity(app, recorded(notebook), notebook=NotebookSide({"five": five}, notebook[0]))
    assert what in {difference.what for difference in report.differences}, str(report)
    assert shown in str(report)


def test_a_plan_of_other_content_is_named(app: Path, notebook: Any) -> None:
    """Plans are compared by what is in them, not by where they lie."""
    plan = app / "plans" / "kind.json"
    said = json.loads(plan.read_text(encoding="utf-8"))
    plan.write_text(json.dumps(said), encoding="utf-8")
    read_plan(str(plan))
    report = parity(app, recorded(notebook), notebook=NotebookSide({"five": five}, notebook[0]))
    assert [difference.what for difference in report.differences] == ["routes.fit.plan"]


@pytest.mark.usefixtures("real_python")
def test_a_model_that_the_route_cannot_choose_is_not_followed(app: Path, notebook: Any) -> None:
    """The app's cascade has other models than the recorded one: its own choice shows as a difference."""
    path = app / "settings.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('models = ["sim/small", "sim/large"]', 'models = ["openai/gpt-4o-mini", "openai/gpt-4o"]'), encoding="utf-8"
    )
    report = parity(app, recorded(notebook))
    found = [(difference.what, difference.after) for difference in report.differences]
    assert ("rung", "openai/gpt-4o") in found


def test_what_the_request_alone_decides_is_not_left_open(tmp_path: Path) -> None:
    """Rules and hashes of the request; a rule that leads to a cascade leaves the cascade's models open; users do, lists do not."""
    inner = {"to": {"strategy": "task", "rules": [{"contains": ["contract"], "use": "judged"}], "otherwise": SMALL}}
    users = {"users": {"strategy": "canary", "stable": SMALL, "canary": LARGE, "share": 0.5}}
    settings = Settings().replace_values("test", model=SMALL, routes={**routes(tmp_path), **inner, **users, "list": [SMALL, LARGE]})
    request = World.request(None, "a contract")  # type: ignore[arg-type]
    facts = facts_of(request.content, request.options)
    found = {name: left_open(name, settings.routes, facts) for name in (*settings.routes, "sim/small")}
    open_ = dict.fromkeys(("judged", "kind", "fit", "to", "users"), (SMALL, LARGE))
    assert found == {"rules": None, "even": None, "list": None, "sim/small": None, **open_}
