"""Routes, plans and the semantic cache in an exported service: the same questions get the same decisions as in the notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client
from nbllm.core.ports import Filter
from nbllm.export.settings_file import settings_file
from nbllm.service import create_app
from tests.service.raw import post
from tests.service.running import running
from tests.service.test_routes_served import routes
from tests.steady import STEADY

ROOMS = ("kitchen", "garden", "office", "cellar")
ASKED = [
    ("by", "How do I paint the kitchen?"),
    ("by", "How do I paint the kitchen ?"),
    ("by", "How do I paint 2 kitchens?"),
    ("learned", "How do I paint the garden?"),
    ("learned", "How do I paint the garden ?"),
    ("by", "How do I read the contract?"),
    ("by", "How do I read the contract ?"),
]


def decisions(client: Any, count: int) -> list[tuple[Any, ...]]:
    """Who answered, and why, of the newest calls, oldest first."""
    rows = client._open_house().storage.ledger.calls(Filter(), limit=count)[::-1]
    return [
        (row.rung, row.source, row.why.route, row.why.reason, row.why.similarity, row.why.threshold, row.why.plan_id)
        for row in rows
    ]


def test_the_app_decides_as_the_notebook_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules to cascades, a plan on embeddings, a calibrated semantic plan: rungs, sources, reasons, similarities agree."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    notebook, out = tmp_path / "notebook", tmp_path / "app"
    notebook.mkdir()
    out.mkdir()
    with Client(home=notebook / "home", ladder=["sim/small"], routes=routes(notebook)) as client:
        client.semantic.import_pairs(
            [(f"How do I paint the {room}{'?' * n}", f"How do I paint my {room}?", True) for room in ROOMS for n in range(60)]
        )
        client.semantic.apply(client.semantic.calibrate(), path=notebook / "semantic.json", accept_foreign=True)
        client.configure(**STEADY)
        for name, text in ASKED:
            client.ask(text, model=name)
        before = decisions(client, len(ASKED))
        asks = "import nbllm\nfrom nbllm import ask\nask('x', model='by')\nask('x', model='learned')\n"
        made = settings_file(client.settings, asks)
    assert made.refusals == ()
    (out / "settings.toml").write_text(made.text, encoding="utf-8")
    for name, content in made.files.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    for file in notebook.glob("*.json"):
        file.unlink()
    with running(create_app(settings=out / "settings.toml")) as app:
        for name, text in ASKED:
            body = {"model": name, "messages": [{"role": "user", "content": text}]}
            assert post(app, "/v1/chat/completions", json.dumps(body).encode()).status == 200
        after = decisions(app.service.client, len(ASKED))
    assert after == before
    assert [source for _, source, *_ in before].count("semantic") >= 2
    assert {route for _, _, route, *_ in before} == {"by", "learned"}
    assert {rung for rung, *_ in before} == {"sim/small", "sim/large"}
