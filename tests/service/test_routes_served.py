"""Routes that choose, behind /v1: an exported service asks the same strategies as the notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbllm.calibration import fit_labels
from nbllm.core.ports import Filter
from nbllm.export.settings_file import settings_file
from nbllm.service import create_app
from nbllm.settings import Settings
from tests.service.raw import post
from tests.service.running import Running, running

LABELS = {"easy": "sim/small", "hard": "sim/large"}


def routes(folder: Path) -> dict[str, Any]:
    """A route of each kind that a service meets, over simulated models."""
    plan = fit_labels(np.random.default_rng(0).normal(size=(40, 256)), ["easy", "hard"] * 20)
    (folder / "kind.json").write_text(plan.to_json(), encoding="utf-8")
    models = ["sim/small", "sim/large"]
    return {
        "by": {"strategy": "task", "rules": [{"contains": ["contract"], "use": "strict"}], "otherwise": "easy"},
        "strict": {"strategy": "cascade", "models": models, "accept": "logprob", "min_logprob": 0.0},
        "easy": {"strategy": "cascade", "models": models, "accept": "logprob", "min_logprob": -9.0},
        "learned": {
            "strategy": "learned", "plan": str(folder / "kind.json"), "embedder": "sim/small", "labels": LABELS,
            "otherwise": "sim/small",
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An app on the settings.toml that an export of a notebook with these routes writes."""
    folder, out = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("app")
    notebook = Settings().replace_values("%llm_config", ladder=["sim/small"], routes=routes(folder))
    asks = "import nbllm\nfrom nbllm import ask\nask('x', model='by')\nask('x', model='learned')\n"
    made = settings_file(notebook, asks)
    assert made.refusals == ()
    (out / "settings.toml").write_text(made.text, encoding="utf-8")
    for name, content in made.files.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    (folder / "kind.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        with running(create_app(settings=out / "settings.toml")) as app:
            yield app


def ask(app: Running, model: str, text: str) -> Any:
    """One question to /v1: the answer's head and body."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return post(app, "/v1/chat/completions", json.dumps(body).encode())


@pytest.mark.parametrize(("text", "rung"), [("Read this contract.", "sim/large"), ("Name a river.", "sim/small")])
def test_a_service_chooses_as_the_notebook_did(served: Running, text: str, rung: str) -> None:
    """Rules lead to cascades, whose rejected answer costs; the second time it is free, and the ledger has route and reason."""
    answer = ask(served, "by", text)
    assert (answer.status, answer.headers["x-rung"], answer.headers["x-source"]) == (200, rung, "model")
    again = ask(served, "by", text)
    assert (again.headers["x-rung"], again.headers["x-source"], float(again.headers["x-cost-usd"])) == (rung, "cache", 0)
    newest, before = _rows(served)
    assert newest.why.reason == f"route by: {rung} holds the exact answer"
    assert before.why.route == "by"
    assert ("rule 1 (contains 'contract') > strict" in before.why.reason) == (rung == "sim/large")


def _rows(app: Running) -> Any:
    house = app.service.client._house
    assert house is not None
    return house.storage.ledger.calls(Filter(), limit=2)


def test_the_plan_of_a_route_came_along(served: Running) -> None:
    """The embedding is asked for and the plan read from beside settings.toml; nothing of the notebook's folder is left."""
    answer = ask(served, "learned", "What is 1 + 1?")
    assert answer.status == 200
    assert "label '" in _rows(served)[0].why.reason


def test_the_routes_are_on_the_menu(served: Running) -> None:
    """/v1/models lists the routes that the flow can ask, and a name that is none is refused."""
    assert ask(served, "nowhere", "x").status == 404
    assert json.loads(ask(served, "by", "Name a river.").body)["model"]
