"""In a real kernel: what a frontend receives, what nbclient keeps, and what an interrupt leaves behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.notebook.kernel import Kernel, running_kernel

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel with a home of its own and the extension loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_HOME", str(tmp_path_factory.mktemp("home")))
        with running_kernel(tmp_path_factory.mktemp("work")) as made:
            made.run(
                "import time as t; s = t.process_time(); get_ipython().run_line_magic('load_ext', 'nbllm'); "
                "s = t.process_time() - s"
            )
            yield made


def test_loading_takes_a_moment(kernel: Kernel) -> None:
    """%load_ext in a warm kernel takes at most 0.15 s of work; other load on the machine does not count."""
    assert float(kernel.value("s")) < 0.15


def test_one_output_is_updated_in_place(kernel: Kernel) -> None:
    """One display, updated under its id at most ten times a second, whose last state is the whole answer with its meter."""
    kernel.run("doc = 'The road leads through the house. It is long and made of stone. ' * 20")
    began = time.monotonic()
    assert kernel.run("%%llm -m sim/large -o a --cache refresh\nSummarise {{ doc }} in ten bullets.") == "ok"
    lasted_s = time.monotonic() - began
    shown = kernel.of("display_data")
    updates = kernel.of("update_display_data")
    assert len(shown) == 1
    assert {u["transient"]["display_id"] for u in updates} == {shown[0]["transient"]["display_id"]}
    assert 2 * lasted_s <= len(updates) <= 10 * lasted_s + 2
    last = updates[-1]["data"]
    assert "sim/large (simulated)" in last["text/plain"]
    assert kernel.value("a.interrupted, a.source") == "(False, 'model')"


def test_an_interrupt_stops_within_a_second_and_keeps_the_text(kernel: Kernel) -> None:
    """The cell ends with a short message, the partial text is in the variable, the next cell runs."""
    came: list[float] = []

    def has_text(message: dict[str, Any]) -> bool:
        text = message["content"].get("data", {}).get("text/plain", "")
        if message["msg_type"] == "update_display_data" and " out · " in text and len(text) > 150:
            came.append(time.monotonic())
            return True
        return False

    assert (
        kernel.run("%%llm -m sim/large -o part --cache off\nSummarise {{ doc }} in ten bullets.", interrupt_when=has_text)
        == "error"
    )
    assert time.monotonic() - came[0] < 1.5
    error = kernel.of("error")[-1]
    assert error["ename"] == "KeyboardInterrupt"
    assert len(error["traceback"]) <= 2
    assert "Stopped by you" in kernel.of("update_display_data")[-1]["data"]["text/plain"]
    assert kernel.value("part.interrupted, len(part.text) > 0") == "(True, True)"
    assert kernel.run("%%llm -m sim/small\nSay hi") == "ok"


def test_a_failed_call_is_a_short_error_of_the_cell(kernel: Kernel) -> None:
    """The frontend gets an error with a few lines, exception groups included."""
    assert kernel.run("%%llm -m sim/small?fault=503 --set retries=0\nHi") == "error"
    error = kernel.of("error")[-1]
    assert error["ename"] == "AllRungsFailed"
    assert len(error["traceback"]) <= 8
    assert kernel.of("stream") == []


def test_tab_completes_in_a_kernel(kernel: Kernel) -> None:
    """Jupyter asks with the whole cell; options and models come back."""
    reply = kernel.client.complete("%%llm -m sim/\nHi", 13, reply=True, timeout=20)["content"]
    assert {"sim/large", "sim/small"} <= set(reply["matches"])


def test_nbclient_keeps_the_last_state_and_stops_at_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is the whole answer with its meter; a failed call stops Run All."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path))
    sources = ["%load_ext nbllm", "%%llm -m sim/small -o a\nSay hi", "%llm_usage", "%%llm -m sim/small\n{{ nothing }}", "never = 1"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    with pytest.raises(CellExecutionError, match="nothing"):
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (answer,) = notebook.cells[1].outputs
    assert answer.output_type == "display_data"
    assert "sim/small (simulated)" in answer.data["text/plain"]
    assert 'role="status"' in answer.data["text/markdown"]
    assert set(notebook.cells[2].outputs[0].data) == {"text/plain", "text/html", "text/markdown"}
    assert notebook.cells[4].outputs == []
    assert notebook.cells[4].execution_count is None
