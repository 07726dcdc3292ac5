"""A notebook's flow on a real vLLM: started by %serve, exported, run, compared, and gone with the kernel."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.engines.server import CONTEXT_TOKENS, PYTHON
from tests.engines_room.processes import linux_only, marked, wait_until_gone
from tests.notebook.kernel import running_kernel

pytestmark = [pytest.mark.engines, pytest.mark.timeout(500)]

FLOW = """
from dataclasses import dataclass
from typing import Literal
from nbllm import ask, flow

@dataclass
class Triage:
    mood: Literal["good", "bad"]
    sure: bool
"""
CELL = """%%serve --flow triage --out support_app
@flow
def triage(ticket: str, lang: str = "en") -> Triage:
    facts = ask(f"List the facts in this ticket, in {lang}:\\n{ticket}", model="vllm/tiny", temperature=0, feature="facts")
    moods = {"structured_outputs": {"choice": ["good", "bad"]}}
    mood = ask(f"Classify.\\n{facts.text}", model="vllm/tiny", temperature=0, extra=moods, feature="triage")
    return Triage(mood=mood.text, sure=len(facts.text) > 20)
"""
ASK = """
import json, urllib.request
request = urllib.request.Request(
    f"{app.base_url}/flows/triage", data=json.dumps({"ticket": "The printer burns."}).encode(),
    headers={"Authorization": f"Bearer {app.key}", "Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as response:
    served, sources = json.load(response), response.headers["X-Source"]
"""


@linux_only
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_from_a_real_model_to_a_service_that_answers_the_same(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Served answers are the notebook's, parity is 100%, and after kill -9 of the kernel neither engine nor service is left."""
    mark = f"NBLLM_TEST_MARK=service-{os.getpid()}"
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    try:
        with running_kernel(tmp_path) as kernel:
            flags = f"--max-model-len {CONTEXT_TOKENS} --enforce-eager --cpu-kvcache-gb 1 --offline --served-name tiny"
            assert kernel.run("%load_ext nbllm") == "ok"
            assert kernel.run(f"%serve start vllm {model_dir} --python {PYTHON} {flags}") == "ok", kernel.of("error")
            assert kernel.run(FLOW) == "ok"
            assert kernel.run(CELL) == "ok", kernel.of("error")
            assert kernel.run("here = triage('The printer burns.'); triage('All is well.', lang='de')") == "ok", kernel.of("error")
            assert kernel.run("%serve up support_app --share -o app") == "ok", kernel.of("error")
            assert kernel.run(ASK) == "ok", kernel.of("error")
            assert kernel.value("served == {'mood': here.mood, 'sure': here.sure}, sources") == "(True, 'cache')"
            assert kernel.run("%serve parity support_app -o report") == "ok", kernel.of("error")
            assert json.loads(kernel.value("[int(report.ok), report.runs, report.calls]")) == [1, 2, 4]
            assert len(marked(mark)) >= 6  # kernel, two supervisors, server, engine core, service
            kernel.manager.provisioner.process.kill()
            wait_until_gone(mark, 5.0)
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
