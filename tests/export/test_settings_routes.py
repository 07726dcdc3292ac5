"""Routes that choose, in an export: the service chooses as the notebook did, plans included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbllm import Settings
from nbllm.export.settings_file import SettingsFile, settings_file
from nbllm.service.configuration import load_service
from nbllm.settings.strategies import Cascade, Learned
from tests.export.test_settings_file import HEAD, read_back
from tests.settings.test_routes import EVERY


def written(asks: str, routes: dict[str, Any]) -> SettingsFile:
    """The file for a flow that asks one route."""
    return settings_file(Settings().replace_values("Client(...)", routes=routes), HEAD + f"ask('x', model={asks!r})")


@pytest.mark.parametrize("name", [name for name in EVERY if name != "learned"])
def test_every_strategy_is_read_back(name: str, tmp_path: Path) -> None:
    """settings.toml holds a route's table, and a service reads the same strategy from it."""
    routes = {"r": EVERY[name]}
    back = read_back(written("r", routes), tmp_path)
    assert back.routes == Settings().replace_values("x", routes=routes).routes


def test_plans_travel(tmp_path: Path) -> None:
    """A route's plan is copied and named by its place in the export; two of the same name stay two."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plan.json").write_text(f'{{"kind": "{folder}"}}', encoding="utf-8")
    routes = {
        "one": EVERY["learned"] | {"plan": str(tmp_path / "a/plan.json")},
        "two": {**EVERY["logprob"], "plan": str(tmp_path / "b/plan.json")} | {"min_logprob": None},
        "by": {"strategy": "task", "rules": [{"feature": "f", "use": "one"}], "otherwise": "two"},
    }
    found = written("by", routes)
    assert sorted(found.files) == ["plans/plan.json", "plans/routes.two.plan-plan.json"]
    out = tmp_path / "out"
    for path, content in found.files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    (out / "settings.toml").write_text(found.text, encoding="utf-8")
    settings, _ = load_service(out / "settings.toml", environ={})
    one, two = settings.routes["one"], settings.routes["two"]
    assert isinstance(one, Learned)
    assert isinstance(two, Cascade)
    assert two.plan is not None
    assert Path(one.plan).read_text(encoding="utf-8") == '{"kind": "a"}'
    assert Path(two.plan).read_text(encoding="utf-8") == '{"kind": "b"}'


def test_only_routes_that_can_be_asked_travel(tmp_path: Path) -> None:
    """Those that the flow names, and those that these name; a helper's model counts among the models."""
    routes = {"asked": {**EVERY["classifier"], "otherwise": "inner"}, "inner": ["sim/small"], "other": ["sim/large"]}
    found = written("asked", routes)
    assert set(read_back(found, tmp_path).routes) == {"asked", "inner"}
    assert "sim/small" in found.models


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({**EVERY["valid"], "check": bool}, "a check in code"),
        ({**EVERY["learned"], "plan": "/nowhere/plan.json"}, "cannot be read"),
    ],
    ids=["check", "plan"],
)
def test_what_cannot_travel_is_refused(route: dict[str, Any], words: str) -> None:
    """A check in code and a plan that is not there are named; nothing is left out in silence."""
    (refusal,) = written("r", {"r": route}).refusals
    assert words in refusal.reason
