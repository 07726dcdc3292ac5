"""A plan in force in one process, taken back or changed by another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.pipeline import looking
from nbllm.testing import FakeProvider
from tests.steady import STEADY

ASKED = "How do I paint the kitchen?"
CHANGES = {
    "taken back": "client.semantic._matches.take_back(json.load(open(plan))['plan_id'], 'wrong too often')",
    "changed": "text = open(plan).read().replace('\"max_error\": 0.05', '\"max_error\": 5'); open(plan, 'w').write(text)",
    "gone": "os.unlink(plan)",
}


@pytest.mark.filterwarnings("ignore::nbllm.NbllmWarning")
@pytest.mark.parametrize("how", CHANGES)
def test_what_another_process_does_to_a_plan_is_in_force_here(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process serves; another takes the plan back, spoils or deletes its file; then nothing is served."""
    monkeypatch.setattr(looking, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(looking, "TRUST_S", 0.1)
    monkeypatch.chdir(tmp_path)
    provider = FakeProvider(default="answer")
    with Client(home=tmp_path / "home", model="sim/small", providers={"simulated": provider}) as client:
        client.semantic.import_pairs(
            [(f"How do I heat room {'x' * n}", f"How do I heat room {'x' * n}?", True) for n in range(200)]
        )
        plan = client.semantic.apply(client.semantic.calibrate(), accept_foreign=True)
        client.configure(**STEADY)
        client.ask(ASKED)
        assert client.ask(f"{ASKED} ").source == "semantic"
        code = f"import json, os, sys; from nbllm import Client; client, plan = Client(home='home'), sys.argv[1]; {CHANGES[how]}"
        # Starting an interpreter takes longer than the plan is trusted.
        subprocess.run([sys.executable, "-c", code, str(plan)], check=True, timeout=60)
        assert client.ask(f"{ASKED}  ").source == "model"
