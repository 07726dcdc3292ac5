"""The semantic cache in a service: the same plan as in the notebook, callers apart, and their word on answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nbllm import Client
from nbllm.service import create_app
from tests.service.running import Running, running, write_settings

ASKED = "How do I paint the kitchen?"
NEAR = "How do I paint the kitchen ?"


def _plan(folder: Path) -> Path:
    """Calibrate in a notebook's home, on imported pairs."""
    with Client(home=folder / "notebook", model="sim/small") as client:
        rooms = ("kitchen", "garden", "office", "cellar")
        client.semantic.import_pairs(
            [(f"How do I paint the {r}{'?' * n}", f"How do I paint my {r}?", True) for r in rooms for n in range(60)]
        )
        client.configure(**{"semantic_cache.mode": "shadow"})
        return client.semantic.apply(client.semantic.calibrate(), path=folder / "plan.json", accept_foreign=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One app with a plan in force."""
    folder = tmp_path_factory.mktemp("app")
    _plan(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        steady = "audit_share = 0.0, embed_timeout_s = 30"
        top = f'ladder = ["sim/small"]\nsemantic_cache = {{mode = "on", plan = "plan.json", accept_foreign = true, {steady}}}'
        with running(create_app(settings=write_settings(folder, top=top))) as app:
            yield app


def _ask(app: Running, text: str, key: str | None = None) -> dict[str, Any]:
    body = {"model": "sim/small", "messages": [{"role": "user", "content": text}]}
    answer = httpx.post(f"{app.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key or app.key}"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["nbllm"]
    return found


def _say(app: Running, body: Any, key: str | None = None) -> httpx.Response:
    return httpx.post(f"{app.url}/v1/feedback", json=body, headers={"Authorization": f"Bearer {key or app.key}"})


def test_a_plan_of_the_notebook_serves_in_the_app_and_one_key_never_gets_anothers_answer(served: Running) -> None:
    """A similar question of the same key is a hit; the same question of another key is the model's."""
    other, _ = served.service.keys.make("default")
    assert _ask(served, ASKED)["source"] == "model"
    assert _ask(served, NEAR)["source"] == "semantic"
    assert _ask(served, NEAR, other)["source"] == "model"


def test_a_callers_word_takes_an_answer_out_for_good(served: Running) -> None:
    """Wrong: gone, and the pair is blocked. Another key cannot say so, and an answer that was no such hit cannot be spoken of."""
    other, _ = served.service.keys.make("default")
    first = _ask(served, "How do I heat the garden?")
    hit = _ask(served, "How do I heat the garden ?")
    assert hit["source"] == "semantic"
    assert _say(served, {"call_id": hit["call_id"], "correct": False}, other).status_code == 404
    assert _say(served, {"call_id": first["call_id"], "correct": False}).status_code == 404
    assert _say(served, {"call_id": hit["call_id"], "correct": True}).json()["evicted"] == 0
    said = _say(served, {"call_id": hit["call_id"], "correct": False})
    assert (said.status_code, said.json()["evicted"]) == (200, 1)
    assert _ask(served, "How do I heat the garden ?")["source"] == "model"


@pytest.mark.parametrize(
    "body", [{}, {"call_id": 7, "correct": True}, {"call_id": "x", "correct": "yes"}, {"call_id": "x", "correct": True, "a": 1}, []]
)
def test_other_bodies_are_refused(served: Running, body: Any) -> None:
    """In OpenAI's shape, as everything below /v1."""
    answer = _say(served, body)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]
    assert httpx.post(f"{served.url}/v1/feedback", json={"call_id": "x", "correct": True}).status_code == 401
    assert json.loads(httpx.get(f"{served.url}/openapi.json", headers=served.headers).text)["paths"]["/v1/feedback"]
