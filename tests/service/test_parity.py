"""Parity of an app, the service as it is over HTTP: the same is 100%, and each change is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client, Settings, ask, flow, use
from nbllm.cli import main
from nbllm.core.ports import Recording
from nbllm.service.recorded import RecordedRun, recorded_runs
from nbllm.service.replay import NotebookSide, ParityFailed, parity

pytestmark = pytest.mark.timeout(120)

FLOWS = """
from dataclasses import dataclass
from nbllm import ask, flow

@dataclass
class Triage:
    queue: str
    urgent: bool

@flow
def triage(ticket: str, lang: str = "en") -> Triage:
    facts = ask(f"List the facts, in {lang}:\\n{ticket}", model="sim/small", feature="triage")
    return ask(f"Classify.\\n{facts.text}", schema=Triage, max_tokens=200).data
"""
APP = """
from pathlib import Path
from nbllm.service import create_app
import flows

app = create_app(flows=[flows.triage], settings=Path(__file__).with_name("settings.toml"))
"""
SETTINGS = 'model = "sim/large"\ntemperature = 0.2\n[budget]\nrequest_usd = "0.50"\n'


@dataclass
class Triage:
    queue: str
    urgent: bool


@flow
def triage(ticket: str, lang: str = "en") -> Triage:
    facts = ask(f"List the facts, in {lang}:\n{ticket}", model="sim/small", feature="triage")
    return ask(f"Classify.\n{facts.text}", schema=Triage, max_tokens=200).data  # type: ignore[no-any-return]


def notebook_settings() -> Settings:
    """What the notebook's calls are made with: the same as the app's."""
    return Settings().with_values("test", {"model": "sim/large", "temperature": 0.2, "budget.request_usd": "0.50"})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Recording]:
    """What a notebook recorded of three runs, two of them with the same arguments."""
    home = tmp_path_factory.mktemp("recorded") / "home"
    with Client(settings=notebook_settings(), home=home, recordings=True) as client, use(client):
        for arguments in (
            {"ticket": "The printer burns."},
            {"ticket": "All is fine.", "lang": "de"},
            {"ticket": "The printer burns."},
        ):
            triage(**arguments)
        return client.recordings.newest(100)


@pytest.fixture
def runs(recorded: Sequence[Recording]) -> list[RecordedRun]:
    """Their runs, each set of arguments once."""
    found = recorded_runs(recorded, ["triage"])
    assert [len(run.calls) for run in found] == [2, 2]
    return found


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An app that does as the notebook does."""
    folder = tmp_path / "support_app"
    folder.mkdir()
    for name, text in (("flows.py", FLOWS), ("app.py", APP), ("settings.toml", SETTINGS)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def side() -> NotebookSide:
    return NotebookSide({"triage": triage}, notebook_settings())


@pytest.mark.usefixtures("real_python")
def test_the_same_flow_is_the_same(app: Path, runs: list[RecordedRun]) -> None:
    """Prompts, parameters, rungs, answers, sources and books are compared, and all of them are equal: every call is a hit."""
    report = parity(app, runs, notebook=side())
    assert report.ok, str(report)
    assert (report.runs, report.calls, report.share) == (2, 4, 1.0)


def test_a_prompt_that_is_another_each_time_is_not_compared(app: Path, runs: list[RecordedRun]) -> None:
    """What the notebook itself asks differently the second time is named, and is no difference; the rest is compared."""
    times = iter(range(100))

    @flow
    def triage(ticket: str, lang: str = "en") -> Triage:
        facts = ask(f"List the facts, in {lang}:\n{ticket}", model="sim/small", feature="triage")
        number = next(times) if lang == "de" else ""
        return ask(f"Classify.\n{facts.text}{number}", schema=Triage, max_tokens=200).data  # type: ignore[no-any-return]

    report = parity(app, runs, notebook=NotebookSide({"triage": triage}, notebook_settings()))
    assert report.ok, str(report)
    assert report.runs == 1
    assert "Not compared: 1 run of triage, which asks something else each time (clock or chance)." in report.notes


KEEPS = """
from functools import cache
from nbllm import ask, flow

@cache
def facts(ticket: str) -> str:
    return ask(f"List the facts: {ticket}").text

@flow
def triage(ticket: str, lang: str = "en") -> dict[str, str]:
    reply = ask(f"Classify, in {lang}: {facts(ticket)}")
    return {"queue": reply.text, "source": reply.source}
"""


@pytest.fixture
def keeps(app: Path, tmp_path: Path) -> tuple[list[RecordedRun], NotebookSide]:
    """An app whose flow keeps what it was told; its recorded runs, and the kernel that made them."""
    (app / "flows.py").write_text(KEEPS, encoding="utf-8")
    cells: dict[str, Any] = {"__name__": "a_notebook"}
    exec(KEEPS, cells)  # noqa: S102 - as a kernel does
    with Client(settings=notebook_settings(), home=tmp_path / "kernel", recordings=True) as client, use(client):
        burns, fine = {"ticket": "It burns."}, {"ticket": "All is fine."}
        for arguments in (burns, {**burns, "lang": "de"}, fine, burns):
            cells["triage"](**arguments)
        found = recorded_runs(client.recordings.newest(100), ["triage"])
    assert [len(run.calls) for run in found] == [2, 1, 2]
    return found, NotebookSide({"triage": cells["triage"]}, notebook_settings())


def test_a_flow_that_keeps_what_it_was_told_is_compared(app: Path, keeps: tuple[list[RecordedRun], NotebookSide]) -> None:
    """Its recorded runs asked as a new process does; the kernel, which asks less by now, is no reason to find a difference."""
    runs, notebook = keeps
    assert parity(app, runs).ok
    report = parity(app, runs, notebook=notebook)
    assert report.ok, str(report)
    assert (report.runs, report.calls) == (3, 5)
    assert any("2 runs of triage held against the calls that were recorded" in note for note in report.notes)


@pytest.mark.parametrize(("old", "new"), [("List the facts", "List all facts"), ("Classify", "Sort")])
def test_what_it_asks_otherwise_is_seen(
    app: Path, keeps: tuple[list[RecordedRun], NotebookSide], old: str, new: str
) -> None:  # fmt: skip
    """That a flow keeps answers hides no change of what it asks."""
    (app / "flows.py").write_text(KEEPS.replace(old, new), encoding="utf-8")
    for notebook in (None, keeps[1]):
        report = parity(app, keeps[0], notebook=notebook)
        assert not report.ok
        assert new in str(report)


def test_a_result_that_holds_its_source_is_the_recorded_one(app: Path, keeps: tuple[list[RecordedRun], NotebookSide]) -> None:
    """What examples of an app hold came from a model: the service is held against that, and not against its own second run."""
    runs = [replace(run, result={"queue": run.calls[-1]["text"], "source": "model"}, knows_result=True) for run in keeps[0]]
    assert parity(app, runs).ok, str(parity(app, runs))


def test_nothing_of_it_is_left_in_the_apps_folder(app: Path, runs: list[RecordedRun]) -> None:
    """No home, no cache, no ledger: what is compared is not used up."""
    parity(app, runs, notebook=side())
    assert {path.name for path in app.iterdir()} - {"__pycache__"} == {"flows.py", "app.py", "settings.toml"}


def test_without_a_notebook_the_recordings_are_what_is_compared_with(app: Path, runs: list[RecordedRun]) -> None:
    """Prompts, rungs and answers as recorded."""
    report = parity(app, runs)
    assert report.ok, str(report)
    assert report.names == ("recorded", "service")


Change = Callable[[str], str]
CHANGES: dict[str, tuple[tuple[str, Change, str, str], ...]] = {
    "prompt, rung and numbers": (
        ("flows.py", lambda text: text.replace("List the facts,", "List all facts,"), "prompt", "List all facts"),
        ("flows.py", lambda text: text.replace("max_tokens=200", "max_tokens=100"), "max_tokens", "100"),
        ("flows.py", lambda text: text.replace('feature="triage"', 'feature="other"'), "feature", "other"),
        ("settings.toml", lambda text: text.replace("0.2", "0.7"), "temperature", "0.7"),
        ("settings.toml", lambda text: text.replace('"sim/large"', '"sim/small"'), "rung", "sim/small"),
        ("settings.toml", lambda text: text.replace('"0.50"', '"0.10"'), "budget.request_usd", "0.10"),
    ),
    "schema and default": (
        ("flows.py", lambda text: text.replace("urgent: bool", "urgent: bool\n    why: str"), "json_schema", '"why"'),
        ("flows.py", lambda text: text.replace('lang: str = "en"', 'lang: str = "fr"'), "prompt", "in fr"),
        ("settings.toml", lambda text: "retries = 0\n" + text, "retries", "0"),
    ),
    "model and system": (
        ("flows.py", lambda text: text.replace('model="sim/small"', 'model="sim/large"'), "models", "sim/large"),
        ("settings.toml", lambda text: 'system = "Be brief."\n' + text, "messages", "Be brief."),
    ),
}
"""What is changed, what the report calls it, and what it shows of it; together, changes that cannot be taken for one another."""


@pytest.mark.parametrize("group", CHANGES)
def test_each_change_is_named(app: Path, runs: list[RecordedRun], group: str) -> None:
    """Parity can fail: a changed prompt, parameter, schema, model, default or setting is what the report names."""
    for file, change, _, _ in CHANGES[group]:
        before = (app / file).read_text(encoding="utf-8")
        after = change(before)
        assert after != before
        (app / file).write_text(after, encoding="utf-8")
    # Arguments as they are sent: a default that changed shows where the recorded run had left it out.
    less = [RecordedRun(r.flow, {k: v for k, v in r.arguments.items() if v != "en"}, r.calls) for r in runs]
    report = parity(app, less, notebook=side())
    assert not report.ok
    for _, _, what, shown in CHANGES[group]:
        assert what in {difference.what for difference in report.differences}, str(report)
        assert shown in str(report)


def test_a_cell_that_was_asked_once_is_asked_in_the_run_by_the_service(app: Path, tmp_path: Path) -> None:
    """A %%llm cell of the notebook is a function of the module: what it asks was recorded outside of the flow, and is compared."""
    rules = """
from nbllm.flow_context import once_in_a_flow

@once_in_a_flow
def rules():
    return ask("Put the policy into one sentence: fires first.", model="sim/large")
"""
    flows = FLOWS.replace("@flow", rules + "\n@flow").replace("Classify.\\n{", "Classify by {rules().text}.\\n{")
    (app / "flows.py").write_text(flows, encoding="utf-8")
    with Client(settings=notebook_settings(), home=tmp_path / "home", recordings=True) as client, use(client):
        policy = ask("Put the policy into one sentence: fires first.", model="sim/large")

        @flow
        def triage(ticket: str, lang: str = "en") -> Triage:
            facts = ask(f"List the facts, in {lang}:\n{ticket}", model="sim/small", feature="triage")
            return ask(f"Classify by {policy.text}.\n{facts.text}", schema=Triage, max_tokens=200).data  # type: ignore[no-any-return]

        triage("The printer burns.")
        found = recorded_runs(client.recordings.newest(10), ["triage"])
    for notebook in (NotebookSide({"triage": triage}, notebook_settings()), None):
        report = parity(app, found, notebook=notebook)
        assert report.ok, str(report)
        assert report.calls == 3
    (app / "flows.py").write_text(flows.replace("fires first", "fires last"), encoding="utf-8")
    assert "fires last" in str(parity(app, found, notebook=NotebookSide({"triage": triage}, notebook_settings())))


def test_a_flow_that_fails_in_the_service_alone_is_told(app: Path, runs: list[RecordedRun]) -> None:
    """How it ended differs, and the report holds what the service said."""
    flows = app / "flows.py"
    flows.write_text(
        flows.read_text(encoding="utf-8").replace("facts = ask", "facts = [][1] if lang == 'de' else ask"), encoding="utf-8"
    )
    report = parity(app, runs, notebook=side())
    assert report.equal == 1
    assert "how it ended" in str(report)
    assert "HTTP 500" in str(report)


def test_a_flow_that_one_side_does_not_have_is_told(app: Path, runs: list[RecordedRun]) -> None:
    """And it is no parity: what was not compared is not the same."""
    other = [*runs, RecordedRun("elsewhere", {}, ())]
    report = parity(app, other)
    assert not report.ok
    assert "elsewhere: the app does not serve it" in str(report)


def test_what_cannot_be_compared_is_an_error(app: Path, tmp_path: Path, runs: list[RecordedRun]) -> None:
    """No runs, no app, an app that does not start: typed, with its own words."""
    with pytest.raises(ParityFailed, match="no recorded run"):
        parity(app, [])
    with pytest.raises(ParityFailed, match=r"holds no app\.py"):
        parity(tmp_path, runs)
    (app / "flows.py").write_text("raise RuntimeError('boom at import')\n", encoding="utf-8")
    with pytest.raises(ParityFailed, match="boom at import"):
        parity(app, runs)


def test_the_command_shows_the_diff_and_ends_with_1(
    app: Path, recorded: Sequence[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """`nbllm parity APP`: the recordings of the home; 0 when all is the same."""
    home = tmp_path / "home"
    with Client(home=home) as client:
        for one in recorded:
            client.recordings.keep(one)
    monkeypatch.setenv("NBLLM_HOME", str(home))
    assert main(["parity", str(app)]) == 0
    assert "Parity 100%: 2 of 2 runs the same" in capsys.readouterr().out
    flows = app / "flows.py"
    flows.write_text(flows.read_text(encoding="utf-8").replace("Classify.", "Sort."), encoding="utf-8")
    assert main(["parity", str(app)]) == 1
    out = capsys.readouterr().out
    assert "-Classify." in out
    assert "+Sort." in out
