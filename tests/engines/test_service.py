"""A notebook's flow on a real vLLM: started by %serve, exported, run, compared, and gone with the kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engines.server import CONTEXT_TOKENS, PYTHON
from tests.engines.vllm_kernel import VllmKernel
from tests.engines_room.processes import linux_only, marked

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
def test_from_a_real_model_to_a_service_that_answers_the_same(vllm_kernel: VllmKernel) -> None:
    """Served answers are the notebook's, parity is 100%, and after kill -9 of the kernel neither engine nor service is left."""
    kernel = vllm_kernel.kernel
    vllm_kernel.runs(FLOW, CELL, "here = triage('The printer burns.'); triage('All is well.', lang='de')")
    vllm_kernel.runs("%serve up support_app --share -o app", ASK)
    assert kernel.value("served == {'mood': here.mood, 'sure': here.sure}, sources") == "(True, 'cache')"
    vllm_kernel.runs("%serve parity support_app -o report")
    assert json.loads(kernel.value("[int(report.ok), report.runs, report.calls]")) == [1, 2, 4]
    assert len(marked(vllm_kernel.mark)) >= 6  # kernel, two supervisors, server, engine core, service
    vllm_kernel.kill()


@linux_only
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_engine_on_another_port_needs_no_new_export(vllm_kernel: VllmKernel, model_dir: Path) -> None:
    """Stopped and started again, the engine listens elsewhere: the app that was exported before finds it, and answers."""
    flags = f"--max-model-len {CONTEXT_TOKENS} --enforce-eager --cpu-kvcache-gb 1 --offline --served-name tiny"
    vllm_kernel.runs(FLOW, CELL, "%serve stop vllm", f"%serve start vllm {model_dir} --python {PYTHON} {flags}")
    vllm_kernel.runs("%serve up support_app -o app", ASK)
    assert vllm_kernel.kernel.value("served['mood'] in ('good', 'bad'), sources") == "(True, 'model')"
