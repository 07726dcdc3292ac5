"""%serve: from its line to a running server and an endpoint of the session, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.error import UsageError

from nbllm.engines import EngineEvent, plan_launch, running
from nbllm.errors import EngineError, EngineFailed, EngineNotPossible
from nbllm.notebook.completion import offered
from nbllm.notebook.manuals import MANUALS
from nbllm.notebook.serve_magic import Telling, _engine_options
from nbllm.settings import Endpoint
from tests.notebook.fakes import FakeClient, Publisher


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulated models do not wait, and nothing goes on after a test."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    yield
    for engine in running():
        engine.stop()


def test_a_server_is_started_used_looked_at_and_stopped(shell: Any, client: FakeClient, capsys: Any) -> None:
    """After start it is an endpoint of the session, after stop what was there before is back."""
    before = Endpoint(base_url="http://127.0.0.1:1/v1")
    client.configure(origin="nbllm.toml:3", endpoints={"sim-server": before})
    ready = shell.run_line_magic("serve", "start sim large --max-num-seqs 4 --usd-per-hour 2")
    said = capsys.readouterr().out
    assert "sim-server: ready" in said
    assert "sim-server/large" in str(ready)
    assert "simulated" in str(ready)
    (engine,) = running()
    assert client.settings.endpoints["sim-server"] is engine.endpoint
    assert client.settings.origin("endpoints.sim-server") == "%serve"
    status = str(shell.run_line_magic("serve", "status"))
    for part in ("ready", "0 running, 0 waiting", "$2.00 an hour", engine.endpoint.base_url):
        assert part in status
    assert engine.endpoint.api_key not in status + said + str(ready) + str(client.settings.explain())
    assert "Stopped: sim-server." in str(shell.run_line_magic("serve", "stop sim-server"))
    assert client.settings.endpoints["sim-server"] == before
    assert client.settings.origin("endpoints.sim-server") == "nbllm.toml:3"
    assert "No model server" in str(shell.run_line_magic("serve", ""))


def test_a_notebook_has_one_display_that_is_updated(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """The start is one output with its last state in it, as text too."""
    shell.run_line_magic("serve", "start sim small --name lab")
    first, *rest = publisher.shown
    assert not first[1]
    assert rest
    assert all(update for _, update in rest)
    assert rest[-1][0]["text/plain"].startswith("lab: ready")
    shell.run_line_magic("serve", "stop")
    assert "lab" not in client.settings.endpoints


def test_a_server_that_runs_is_attached_and_let_go_of(shell: Any, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attach takes an address and the name of the variable with its key."""
    shell.run_line_magic("serve", "start sim small")
    (engine,) = running()
    monkeypatch.setenv("LAB_KEY", str(engine.endpoint.api_key))
    shell.run_line_magic("serve", f"attach {engine.endpoint.base_url} --name lab --key-env LAB_KEY")
    assert client.settings.endpoints["lab"].api_key_env == "LAB_KEY"
    shell.run_line_magic("serve", "stop lab")
    assert engine.state == "ready"
    with pytest.raises(EngineFailed):
        shell.run_line_magic("serve", "attach http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("strat sim large", "Did you mean start"),
        ("start sim", "Write %serve start ENGINE MODEL"),
        ("start sim large --max-modl-len 3", "Did you mean --max-model-len"),
        ("start sim large --key-env X", "--key-env does not go with %serve start"),
        ("start sim large -o eng", "--out does not go with %serve start. Its endpoint gets a name with --name NAME"),
        ("status --users 3", "--users does not go with %serve status. It is for load: people who ask"),
        ("status --force", "--force does not go with %serve status"),
        ("stop lab", "No server 'lab' runs here"),
        ("attach", "Write %serve attach URL"),
        ("start sim large --port 0", "a port is 1 to 65535"),
        ("start vllm m --dtype int3", "dtype must be one of"),
        ("start vllm m --enable-prefix-caching --no-enable-prefix-caching", "given with its opposite"),
    ],
)
def test_a_line_that_makes_no_sense_is_a_usage_error(shell: Any, client: FakeClient, line: str, said: str) -> None:
    """In words, with what to write instead; nothing is started."""
    with pytest.raises(UsageError, match=said):
        shell.find_line_magic("serve")(line)
    assert running() == []


def test_an_option_of_another_engine_is_refused(shell: Any, client: FakeClient) -> None:
    """The simulated server has no GPU to fill."""
    with pytest.raises(EngineNotPossible, match="has no option 'gpu_memory_utilization'"):
        shell.find_line_magic("serve")("start sim large --gpu-memory-utilization 0.5")


def test_switches_have_an_off() -> None:
    """--no-enable-prefix-caching is enable_prefix_caching=False; the magic's own options are none of the engine's."""
    assert _engine_options({"no_enable_prefix_caching": True, "force": True, "seed": 3}) == {
        "enable_prefix_caching": False,
        "seed": 3,
    }


def test_the_manual_and_tab_know_the_options() -> None:
    """%serve? lists the engines' options in 80 columns; Tab offers words and flags."""
    text = MANUALS["serve"].text()
    for part in ("--tensor-parallel-size", "--speculative-config", "--no-enable-prefix-caching", "--trust-remote-code", "--python"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80
    assert offered("%serve sta", {}) == ("sta", ["start", "status"])
    assert offered("%serve start vllm m --tensor", {}) == ("--tensor", ["--tensor-parallel-size"])


def test_what_is_refused_leaves_no_display(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """Nothing says that a start has begun when nothing was started."""
    shell.run_line_magic("serve", "start sim small")
    before = len(publisher.shown)
    with pytest.raises(EngineNotPossible, match="runs already"):
        shell.run_line_magic("serve", "start sim small")
    assert len(publisher.shown) == before


def test_a_terminal_keeps_one_line_a_stage_and_one_every_ten_seconds(capsys: Any) -> None:
    """A long start is seen to go on; short lines, the arithmetic once."""
    plan = plan_launch("sim", "small")
    telling = Telling(None, plan)
    for second in (0.0, 0.5, 1.0, 9.0, 10.5, 11.0, 20.6):
        stage = "launched" if second == 0 else "loading"
        telling.event(EngineEvent("vllm", stage, second, f"Loading shard {second} " + "x" * 500))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" · ")[0] for line in lines if line.startswith("vllm:")] == [
        "vllm: launched, 0 s",
        "vllm: loading, 0 s",
        "vllm: loading, 10 s",
        "vllm: loading, 21 s",
    ]
    assert max(map(len, lines)) < 200


def test_stop_gives_all_endpoints_back_and_goes_on_when_one_does_not_end(
    shell: Any, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server that cannot be ended keeps no other one running, and no endpoint."""
    shell.run_line_magic("serve", "start sim small --name first")
    shell.run_line_magic("serve", "start sim small --name second")
    first, second = running()
    monkeypatch.setattr(type(first), "stop", lambda self: (_ for _ in ()).throw(EngineError("stuck")) if self is first else None)
    with pytest.raises(EngineError, match="stuck"):
        shell.run_line_magic("serve", "stop")
    monkeypatch.undo()
    assert (first.state, second.state) == ("stopped", "stopped")
    assert not {"first", "second"} & set(client.settings.endpoints)
    first.stop()
    second.stop()


def test_a_name_that_hides_a_provider_says_so(shell: Any, client: FakeClient) -> None:
    """openai/... is asked of this server as long as it runs: that is no surprise afterwards."""
    ready = shell.run_line_magic("serve", "start sim small --name openai")
    assert "Until it is stopped it answers what is asked of openai/..." in str(ready).replace("\n", " ")
    assert "Until" not in str(shell.run_line_magic("serve", "start sim small --name mine"))


def test_a_start_that_failed_does_not_go_on_loading(shell: Any, client: FakeClient, publisher: Publisher) -> None:
    """What stays in the notebook is how it ended; what is named twice is shown once."""
    with pytest.raises(EngineFailed):
        shell.run_line_magic("serve", "start sim large?fault=503")
    assert publisher.shown[-1][0]["text/plain"].startswith("sim-server was not started")
    shell.run_line_magic("serve", "start sim large")
    assert str(shell.run_line_magic("serve", "status sim-server sim-server")).count("Simulated server") == 1
