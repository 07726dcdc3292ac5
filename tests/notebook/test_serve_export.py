"""%%serve: the cell runs, its flow is exported with this session's cells, and what is in the way is told at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm import Client, set_process_client
from nbllm.export import ExportRefused
from nbllm.notebook import extension
from nbllm.notebook.completion import offered
from nbllm.notebook.serve_manual import EXPORT, SERVE
from nbllm.service.replay import app_runs, parity

pytestmark = pytest.mark.timeout(180)

TYPES = (
    "from dataclasses import dataclass\nfrom nbllm import ask, flow\n\n@dataclass\nclass Triage:\n    queue: str\n    urgent: bool"
)
FLOW = """@flow
def triage(ticket: str, lang: str = "en") -> Triage:
    return ask(f"Classify, in {lang}:\\n{ticket}", schema=Triage, model="sim/small").data"""


@pytest.fixture
def session(one_shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shell with a history of its own, a real client, and a folder to work in."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    monkeypatch.chdir(tmp_path)
    with Client(home=tmp_path / "home", recordings=True) as client:
        set_process_client(client)
        one_shell.reset(new_session=True)
        extension.load_ipython_extension(one_shell)
        yield one_shell
        extension.unload_ipython_extension(one_shell)
        set_process_client(None)
        one_shell.reset(new_session=True)


def run(shell: Any, cell: str) -> Any:
    """Run a cell as a person does; raise what it raised, return what it showed."""
    done = shell.run_cell(cell, store_history=True)
    done.raise_error()
    return done.result


def test_a_cell_defines_a_flow_and_exports_it(session: Any) -> None:
    """The project holds the cells that the flow needs and no other; what was kept and proved is shown."""
    run(session, "unrelated = 1")
    run(session, TYPES)
    view = run(session, f"%%serve --flow triage --out support_app\n{FLOW}")
    text = Path("support_app/flows.py").read_text(encoding="utf-8")
    assert "class Triage" in text
    assert "def triage" in text
    assert "unrelated" not in text
    assert Path("support_app/app.py").is_file()
    for part in ("triage is exported to support_app", "cell 2", "defines Triage", "without network", "%serve up support_app"):
        assert part in str(view)
    assert session.user_ns["triage"].__nbllm_flow__ == "triage"


def test_a_flow_is_named_with_its_recorded_runs(session: Any) -> None:
    """Defined and run above: %serve export takes it, and --examples its runs; without --flow a cell's only flow is meant."""
    run(session, TYPES)
    run(session, f"%%serve --out support_app\n{FLOW}")
    run(session, "triage('The printer burns.')")
    assert "body is empty" in str(session.run_cell("%%serve --flow triage --out support_app", store_history=True).error_in_exec)
    view = run(session, "%serve --flow triage --out support_app --examples all")  # as IPython advises then
    assert "1 recorded run travel" in str(view)
    assert "1 recorded run travel" in str(run(session, "%serve export triage --out support_app --examples all"))
    assert "The printer burns." in Path("support_app/examples.json").read_text(encoding="utf-8")


def test_a_flow_that_reads_an_llm_cell_is_exported_before_and_after_it_ran(session: Any) -> None:
    """What the cell asked once, the module asks in each run: its recorded runs still ask the same, and so do those that travel."""
    run(session, TYPES)
    run(session, "%%llm -m sim/small -o rules\nPut this into one sentence: fires first, then leaks.")
    flow_cell = FLOW.replace("Classify, in {lang}", "Classify by {rules.text}, in {lang}")
    run(session, f"%%serve --flow triage --out support_app\n{flow_cell}")
    run(session, "triage('The printer burns.')")
    view = run(session, "%serve export triage --out support_app --examples all")
    assert "1 recorded run asked the same" in " ".join(str(view).split())
    report = parity(Path("support_app"), app_runs(Path("support_app")))
    assert report.ok, str(report)


def test_everything_in_the_way_is_told_at_once(session: Any) -> None:
    """One error with cell and line of each reason; nothing is written."""
    run(session, TYPES)
    with pytest.raises(ExportRefused) as refused:
        run(
            session,
            "%%serve --flow ask_me --out bad_app\n@flow\ndef ask_me(t: str) -> str:\n    display(t)\n    return input() + missing",
        )
    assert len(refused.value.refusals) >= 3
    assert {refusal.cell for refusal in refused.value.refusals} == {2}
    assert not Path("bad_app").exists()


def test_an_error_of_the_cell_is_the_cells(session: Any) -> None:
    """What the body raises is raised, nothing is exported, and the next cell runs."""
    with pytest.raises(ZeroDivisionError):
        run(session, "%%serve --flow triage --out support_app\nratio = 1 / 0")
    assert not Path("support_app").exists()
    assert run(session, "6 * 7") == 42


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (f"%%serve --flow triage\n{FLOW}", "needs a folder"),
        (f"%%serve --flow trage --out x\n{FLOW}", "Did you mean triage"),
        ("%%serve --out x\nvalue = 1", "this cell defines no flow".capitalize()),
        ("%%serve --flow value --out x\nvalue = 1", "a function is needed, not int"),
        (f"%%serve --flow 1x --out x\n{FLOW}", "cannot name a variable"),
        (f"%%serve triage --out x\n{FLOW}", "'triage' is no option"),
        (f"%%serve --flwo triage --out x\n{FLOW}", "Did you mean --flow"),
        ("%serve export triage", "Write %serve export FLOW --out FOLDER"),
        ("%serve export nothing --out x", "no such function here"),
        ("%serve up", "Write %serve up APP"),
        ("%serve load nowhere", "nowhere is not up"),
        ("%serve up app --users 5", "--users does not go with %serve up"),
        ("%serve up app -o 1x", "cannot name a variable"),
        ("%serve load app --seconds long", "a length of time is a number"),
        ("%serve load app --users -5", "people are 1 to 10000"),
        ("%serve load http://127.0.0.1:8080/", "takes the name of an app that is up"),
        ("%serve up app --share --home x", "give one of them"),
    ],
)
def test_a_line_that_makes_no_sense_is_a_usage_error(session: Any, cell: str, message: str) -> None:
    """In words, with what to write instead."""
    run(session, TYPES)
    shown = session.run_cell(cell, store_history=True)
    assert isinstance(shown.error_in_exec, UsageError)
    assert message in str(shown.error_in_exec)
    assert not Path("x").exists()


def test_the_manuals_and_tab(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """%%serve? and %serve? are two manuals of 80 columns; Tab offers the flags of each, folders, and flows."""
    for manual in (EXPORT, SERVE):
        assert max(map(len, manual.text().splitlines())) <= 80
    assert "--examples" in session.find_cell_magic("serve").__doc__
    assert "%serve gateway" in session.find_line_magic("serve").__doc__
    Path("support_app").mkdir()
    assert offered("%serve up sup", {}) == ("sup", ["support_app/"])
    assert offered("%serve load x --us", {}) == ("--us", ["--users", "--usd-per-hour"])
    assert offered("%%serve --fl", {}) == ("--fl", ["--flow"])
    assert offered("%%serve --flow tri", {"functions": lambda: ["triage", "other"]}) == ("tri", ["triage"])
