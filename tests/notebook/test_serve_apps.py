"""%serve up, load, parity, status, stop: an exported app below the notebook, from its line to its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm import Client, set_process_client
from nbllm.errors import AppNotPossible, InvalidRequest, NbllmError, SloViolated
from nbllm.notebook import extension, running_app
from nbllm.notebook.app_view import Card, line_of
from nbllm.notebook.running_app import App, start_app
from nbllm.notebook.serve_apps import NoParity
from nbllm.service.numbers import numbers_on
from tests.engines_room.processes import linux_only, marked, wait_until_gone
from tests.notebook.fakes import Publisher

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

FLOWS = """
from dataclasses import dataclass
from nbllm import ask, flow

@dataclass
class Triage:
    queue: str
    urgent: bool

@flow
def triage(ticket: str, lang: str = "en") -> Triage:
    return ask(f"Classify, in {lang}:\\n{ticket}", schema=Triage, model="sim/small", feature="triage").data
"""
APP = """
from pathlib import Path
from nbllm.service import create_app
import flows

app = create_app(flows=[flows.triage], settings=Path(__file__).with_name("settings.toml"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app, in the folder that is worked in."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "support_app"
    made.mkdir()
    for name, text in (("flows.py", FLOWS), ("app.py", APP), ("settings.toml", 'model = "sim/small"\n')):
        (made / name).write_text(text, encoding="utf-8")
    return made


@pytest.fixture
def session(one_shell: Any, folder: Path, tmp_path: Path) -> Iterator[Any]:
    """A shell with a real client, in which the flow was defined and run; nothing runs on after the test."""
    with Client(home=tmp_path / "home", recordings=True) as client:
        set_process_client(client)
        one_shell.reset(new_session=True)
        extension.load_ipython_extension(one_shell)
        one_shell.run_cell(FLOWS, store_history=True).raise_error()
        one_shell.run_cell("triage('The printer burns.')", store_history=True).raise_error()
        yield one_shell
        one_shell.run_line_magic("serve", "stop")
        extension.unload_ipython_extension(one_shell)
        set_process_client(None)
        one_shell.reset(new_session=True)


def post(app: App, body: dict[str, Any]) -> tuple[Any, Any]:
    """Run the flow in the app; return its result and the headers."""
    headers = {"Authorization": f"Bearer {app.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{app.base_url}/flows/triage", json.dumps(body).encode(), headers)  # noqa: S310 - as below
    with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - http on loopback
        return json.load(response), response.headers


def test_up_asked_compared_loaded_looked_at_and_stopped(session: Any, capsys: Any) -> None:
    """The app answers what the notebook did, from the notebook's cache; numbers say so; nothing is left of it after stop."""
    session.run_line_magic("serve", "up support_app --share -o app")
    said = capsys.readouterr().out
    app: App = session.user_ns["app"]
    for part in ("support_app is up at http://127.0.0.1:", "POST http://", "/flows/triage", "/docs", app.key, "no request yet"):
        assert part in said
    assert app.key not in repr(app) + str(vars(app).get("_process"))
    result, headers = post(app, {"ticket": "The printer burns."})
    assert result == vars(session.user_ns["triage"]("The printer burns."))
    assert (headers["X-Source"], headers["X-Cost-Usd"]) == ("cache", "0")
    assert "Parity 100%: 1 of 1 run" in str(session.run_line_magic("serve", "parity support_app"))
    plot = session.run_line_magic("serve", "load support_app --users 100 --seconds 0.5 --p95 5s --error-rate 1% -o measured")
    assert "none failed" in plot.text
    assert "2 of 2 promises hold" in capsys.readouterr().out
    status = str(session.run_line_magic("serve", "status"))
    requests = 1 + len(session.user_ns["measured"].samples)
    assert f"{requests} requests" in " ".join(status.split())
    assert app.key not in status
    assert "Stopped: support_app." in str(session.run_line_magic("serve", "stop support_app"))
    assert app.state == "stopped"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(app.base_url + "/health", timeout=2)  # noqa: S310 - http on loopback
    assert "no app runs here" in str(session.run_line_magic("serve", "status"))


def test_the_card_in_a_notebook_loses_its_key(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is in the first view and in none after the first request; stopped, the card keeps what it showed, without it."""
    fake = Publisher()
    monkeypatch.setattr(session, "kernel", object(), raising=False)
    monkeypatch.setattr(session, "display_pub", fake)
    session.run_line_magic("serve", "up support_app --share -o app")
    app: App = session.user_ns["app"]
    assert app.key in fake.shown[-1][0]["text/plain"]
    card = Card(app, ["triage"])
    post(app, {"ticket": "The printer burns."})
    assert app.key not in str(card.view())
    assert "1 request · 1 call, 1 from the cache · $0.00" in " ".join(str(card.view()).split())
    session.run_line_magic("serve", "stop")
    last = fake.shown[-1]
    assert last[1]
    assert app.key not in json.dumps(last[0])
    assert last[0]["text/plain"].startswith("support_app is stopped")
    assert "1 request" in last[0]["text/plain"]


def test_a_difference_makes_the_cell_fail(session: Any, folder: Path) -> None:
    """The diff is the error; `-o` keeps the report."""
    flows = folder / "flows.py"
    flows.write_text(flows.read_text(encoding="utf-8").replace("Classify,", "Sort,"), encoding="utf-8")
    with pytest.raises(NoParity) as found:
        session.run_line_magic("serve", "parity support_app -o report")
    lines = found.value._render_traceback_()
    assert any("Sort, in en:" in line for line in lines)
    assert session.user_ns["report"].share == 0


def test_a_promise_that_does_not_hold_makes_the_cell_fail(session: Any) -> None:
    """With the numbers; limits of a tier show as what a client would see."""
    session.run_line_magic("serve", "up support_app")
    with pytest.raises(SloViolated, match="p95_s"):
        session.run_line_magic("serve", "load support_app --users 60 --seconds 0.6 --even --p95 0.01ms")
    session.run_line_magic("serve", "load support_app --users 20 --seconds 0.3 -o measured")
    assert session.user_ns["measured"].errors() == {}
    with pytest.raises(UsageError, match="has no such tier"):
        session.run_line_magic("serve", "load support_app --tier gold")
    with pytest.raises(UsageError, match="does not serve it"):
        session.run_line_magic("serve", "load support_app --flow other")
    with pytest.raises(InvalidRequest, match="ramp_s"):
        session.run_line_magic("serve", "load support_app --seconds 1 --ramp 5s")


def test_an_app_has_a_home_of_its_own_unless_it_is_told(session: Any, folder: Path, tmp_path: Path) -> None:
    """Its cache, ledger, budgets and jobs are in its folder; another machine's address is no target, and that is said."""
    session.run_line_magic("serve", "up support_app -o app")
    _, headers = post(session.user_ns["app"], {"ticket": "The printer burns."})
    assert headers["X-Source"] == "model"
    assert (folder / ".state" / "ledger.db").is_file()
    session.run_line_magic("serve", "stop")
    session.run_line_magic("serve", "up support_app --home elsewhere -o app")
    assert (tmp_path / "elsewhere").is_dir()
    with pytest.raises(InvalidRequest, match="this machine only"):
        session.run_line_magic("serve", "load http://example.com/")


def test_what_is_no_app_is_refused(session: Any, folder: Path) -> None:
    """No folder, no app in it, a taken port, another app of the name that is up already: typed, nothing is started."""
    with pytest.raises(AppNotPossible, match="is not there"):
        session.run_line_magic("serve", "up nowhere")
    (folder.parent / "empty").mkdir()
    with pytest.raises(AppNotPossible, match="holds no exported app"):
        session.run_line_magic("serve", "up empty")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AppNotPossible, match="is taken"):
        session.run_line_magic("serve", f"up support_app --port {taken.getsockname()[1]}")
    session.run_line_magic("serve", "up support_app")
    shutil.copytree(folder, folder.parent / "other" / folder.name, ignore=shutil.ignore_patterns(".state"))
    with pytest.raises(AppNotPossible, match="is up already"):
        session.run_line_magic("serve", f"up other/{folder.name}")
    assert [app.folder for app in running_app.running()] == [folder.resolve()]


def test_a_cell_that_runs_an_app_may_be_run_again(session: Any, folder: Path) -> None:
    """The app is run anew, with the code that is there by then; the one before is ended and its key opens nothing."""
    session.run_line_magic("serve", "up support_app -o app")
    before: App = session.user_ns["app"]
    (folder / "flows.py").write_text(FLOWS.replace("def triage", "def sort_it").replace("triage", "sort_it"), encoding="utf-8")
    (folder / "app.py").write_text(APP.replace("triage", "sort_it"), encoding="utf-8")
    session.run_line_magic("serve", "up support_app -o app")
    app: App = session.user_ns["app"]
    assert running_app.running() == [app]
    assert before.state == "stopped"
    assert app.key != before.key
    assert b"/flows/sort_it" in app.get("/openapi.json")[1]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("flows.py", "raise RuntimeError('boom at import')\n", "boom at import"),
        ("settings.toml", "model = sim/small\n", "settings.toml"),
        ("flows.py", FLOWS.replace("ticket: str", "ticket"), "no annotation"),
    ],
)
def test_an_app_that_does_not_start_says_why(session: Any, folder: Path, file: str, text: str, words: str) -> None:
    """Its own last words, in a few lines; nothing of it is left."""
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(NbllmError) as failed:
        session.run_line_magic("serve", "up support_app")
    assert words in str(failed.value)
    assert len(str(failed.value).splitlines()) <= 10
    assert running_app.running() == []


@linux_only
def test_an_app_that_dies_is_seen_and_one_ends_with_its_kernel(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, it is shown as ended with its exit code; stopped, none of its processes is left after 5 s."""
    mark = f"NBLLM_TEST_MARK=app-{os.getpid()}"
    monkeypatch.setenv(*mark.split("="))
    with start_app(folder, home=tmp_path / "home") as app:
        assert app.pid is not None
        os.kill(app.pid, signal.SIGKILL)
        assert app._process.exited.wait(30)
        assert app.state == "ended"
        assert "ended by itself" in str(Card(app, ["triage"]).view())
    with start_app(folder, home=tmp_path / "home") as app:
        assert len(marked(mark)) >= 1
    wait_until_gone(mark, 5.0)


def test_numbers_are_read_from_the_page_for_prometheus() -> None:
    """Requests of flows and of /v1, not those that look at the service; hits; dollars; what is unknown is counted."""
    page = """
nbllm_requests_total{route="/flows/triage",method="POST",status="200"} 7.0
nbllm_requests_total{route="/flows/triage",method="POST",status="429"} 2.0
nbllm_requests_total{route="/v1/chat/completions",method="POST",status="200"} 1.0
nbllm_requests_total{route="/metrics",method="GET",status="200"} 99.0
nbllm_calls_total{rung="sim/small",source="model",status="done"} 3.0
nbllm_calls_total{rung="sim/small",source="cache",status="done"} 5.0
nbllm_cost_usd_total{rung="sim/small"} 0.0012
nbllm_attempts_of_unknown_cost_total{rung="lab/x"} 1.0
nbllm_requests_running 2.0
"""
    numbers = numbers_on(page)
    assert (numbers.requests, numbers.refused, numbers.calls, numbers.hits, numbers.unknown_costs) == (10, 2, 8, 5, 1)
    line = "10 requests, 2 refused or failed · 8 calls, 5 from the cache · $0.0012 and 1 of unknown cost · 2 under way"
    assert line_of(numbers) == line
    assert line_of(numbers_on("")) == "no request yet"
