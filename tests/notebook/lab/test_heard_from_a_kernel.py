"""What a front end of the JupyterLab extension hears of a real kernel: announcements, numbers, badges, farewells."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.client.helpers import until
from tests.notebook.kernel import Kernel, running_kernel
from tests.notebook.lab.fronts import STREAM, Front

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


def test_loading_announces_itself_and_nothing_more(kernel: Kernel) -> None:
    """One comm is opened, with the version; calls then send nothing more and start no thread, as long as nobody listens.

    For the first seconds calls are remembered for a page that is on its way; the first call after that finds that nobody came.
    """
    opened = [message["content"] for message in kernel.loaded if message["msg_type"].startswith("comm")]  # type: ignore[attr-defined]
    assert [(one["target_name"], one["data"]) for one in opened] == [
        ("nbllm", {"v": 1, "type": "announce", "nbllm": kernel.literal("nbllm.__version__")})
    ]
    kernel.run("r = nbllm.ask('Say hi', model='sim/small')")
    assert kernel.of("comm_open", "comm_msg", "comm_close") == []
    kernel.run("from nbllm.notebook.lab import bridge; now_s = bridge._clock_s; bridge._clock_s = lambda: now_s() + 3600")
    kernel.run("r = nbllm.ask('Say hi', model='sim/small')")
    kernel.run("bridge._clock_s = now_s")
    assert kernel.literal("[t.name for t in threading.enumerate() if t.name.startswith('nbllm-lab')], ONLOOKERS") == ([], [])


def test_a_front_end_without_the_extension_hides_it_from_nobody(kernel: Kernel, fronts: Any) -> None:
    """It closes the announcement, again and again: a page that comes later finds it among the comms all the same."""
    front = fronts()

    def announced() -> list[str]:
        asked = front.client.session.msg("comm_info_request", {"target_name": "nbllm"})
        front.client.shell_channel.send(asked)
        while True:
            reply = front.client.get_shell_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == asked["header"]["msg_id"]:
                return list(reply["content"]["comms"])

    (front.comm_id,) = before = announced()
    for _ in range(3):
        front.raw("comm_close", {"data": {}})
        assert announced() == before
    assert kernel.run("%unload_ext nbllm") == "ok"
    assert announced() == []
    assert kernel.run("%load_ext nbllm") == "ok"
    assert len(announced()) == 1


def test_a_streamed_call_moves_and_its_row_is_the_ledgers(kernel: Kernel, fronts: Any) -> None:
    """Running counts up while it streams; the line that stays has the ledger's numbers, the cell and the notebook."""
    front = fronts().hello()
    front.until(lambda: front.state)
    before = front.state["session"]["calls"]
    asked = front.execute(STREAM, "cell-7")
    front.until(lambda: front.state["running"] and front.state["running"][0]["output_tokens"] > 10)
    under_way = front.state["running"][0]
    assert (under_way["cell_id"], under_way["notebook"], under_way["stoppable"]) == ("cell-7", front.tag, True)
    assert front.state["session"]["running"] == 1
    assert front.replied(asked)["status"] == "ok"
    front.until(lambda: not front.state["running"] and front.state["session"]["calls"] == before + 1)
    line = front.state["calls"][0]
    row, attempts, usage = kernel.literal(
        "(lambda c: (lambda r: ({'call_id': r.call_id, 'cell_id': r.cell_id, 'notebook': r.notebook, 'latency_s': r.latency_s}, "
        "[str(a.cost_usd) for a in c.ledger.attempts(r.call_id)], str(c.usage('total').rows[0].cost_usd)))"
        "(c.ledger.calls(c._filter({}), limit=1)[0]))(nbllm.get_client())",
    )
    assert (line["call_id"], line["cell_id"], line["notebook"]) == (row["call_id"], "cell-7", front.tag)
    assert line["latency_s"] == pytest.approx(row["latency_s"], abs=1e-6)
    assert float(line["cost_usd"]) == pytest.approx(float(attempts[0]))
    assert float(front.state["session"]["cost_usd"]) == pytest.approx(float(usage))
    assert front.gaps == 0


def test_the_numbers_are_whole_for_whoever_comes_late(kernel: Kernel, fronts: Any) -> None:
    """A snapshot has what was asked before anybody listened, and budgets, endpoints and this day follow."""
    kernel.run("r = nbllm.ask('late?', model='sim/small', cache='off')")
    front = fronts().hello()
    front.until(lambda: front.state and front.state["budgets"] and front.state["endpoints"] and front.state["today"]["calls"])
    assert front.of("snapshot")[0]["state"]["session"]["calls"] >= 1
    calls = kernel.literal("nbllm.get_client().usage('total').rows[0].calls")
    assert front.state["session"]["calls"] == calls == len(front.state["calls"])
    assert {one["scope"] for one in front.state["budgets"]} == {"session", "day"}
    front.until(lambda: [one for line in front.state["endpoints"] for one in line["models"] if one["model"] == "small"])


def test_never_more_often_than_asked_for(kernel: Kernel, fronts: Any) -> None:
    """Two messages a second, whatever happens: a thousand hits and a stream."""
    front = fronts().hello(updates_per_s=2)
    front.until(lambda: front.state)
    asked = front.execute(
        "for _ in range(1000): nbllm.ask('late?', model='sim/small')\nfor _ in range(3): nbllm.ask('x', cache='off')"
    )
    began_s = time.monotonic()
    said = front.hear(2.5)
    assert len([one for one in said if one["type"] != "result"]) <= 2 * (time.monotonic() - began_s) + 1
    front.replied(asked)
    calls = kernel.literal("nbllm.get_client().usage('total').rows[0].calls")
    front.until(lambda: front.state["session"]["calls"] == calls)
    assert len(front.state["calls"]) <= 200


def test_a_missing_number_is_made_good_by_a_snapshot(kernel: Kernel, fronts: Any) -> None:
    """Who asks for a snapshot gets the whole state, numbered so that the next delta follows it."""
    front = fronts().hello()
    # The first call of a kernel makes the ledger, which is a snapshot of its own: here it is made before.
    front.run("r = nbllm.ask('Say he', model='sim/small')")
    front.until(lambda: front.state and front.state["session"]["calls"])
    before = len(front.of("snapshot"))
    front._seq = 10**6
    front.run("r = nbllm.ask('Say hi', model='sim/small')")
    front.until(lambda: front.gaps == 1 and len(front.of("snapshot")) == before + 1)
    front.run("r = nbllm.ask('Say ho', model='sim/small')")
    calls = kernel.literal("nbllm.get_client().usage('total').rows[0].calls")
    front.until(lambda: front.state["session"]["calls"] == calls)
    assert front.gaps == 1


def test_a_page_that_was_reloaded_is_found_out(kernel: Kernel, fronts: Any) -> None:
    """When another front end of the notebook comes, one that lives notices that a number is missing, and hears on."""
    first, second = fronts().hello(), fronts()
    first.until(lambda: first.state)
    second.hello()
    second.until(lambda: second.state)
    first.until(lambda: first.gaps == 1 and len(first.of("snapshot")) == 2)
    first.run("r = nbllm.ask('Say hi', model='sim/small')")
    calls = kernel.literal("nbllm.get_client().usage('total').rows[0].calls")
    first.until(lambda: first.state["session"]["calls"] == calls)
    second.until(lambda: second.state["session"]["calls"] == calls)


def _open_calls(ledger: sqlite3.Connection) -> int:
    """How many rows are open; 0 as long as the kernel has not made the table."""
    try:
        (count,) = ledger.execute("SELECT count(*) FROM calls WHERE status = 'open'").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(count)


def test_a_call_that_began_before_anybody_looked_is_shown_and_cannot_be_stopped(kernel: Kernel, fronts: Any) -> None:
    """It is under way by the ledger; when it ends it is a line like any other, counted once."""
    front = fronts(subshell=True)
    asked = front.execute(STREAM, "cell-4")
    with closing(sqlite3.connect(Path(os.environ["NBLLM_HOME"]) / "ledger.db")) as ledger:
        until(lambda: _open_calls(ledger) == 1)
    front.hello()
    front.until(lambda: front.state and front.state["running"])
    under_way = front.state["running"][0]
    assert (under_way["stoppable"], under_way["cell_id"]) == (False, "cell-4")
    assert "began before" in front.command("stop", call_id=under_way["call_id"])["message"]
    front.replied(asked)
    front.until(lambda: not front.state["running"] and front.state["calls"][0]["call_id"] == under_way["call_id"])
    usage = kernel.literal("(lambda r: (r.calls, float(r.cost_usd), r.input_tokens))(nbllm.get_client().usage('total').rows[0])")
    session = front.state["session"]
    assert (session["calls"], float(session["cost_usd"]), session["input_tokens"]) == pytest.approx(usage)


def test_figures_of_the_running_cell_are_left_alone(kernel: Kernel, fronts: Any) -> None:
    """Ipykernel's usual callbacks around comm messages, which would show them from another thread, are not run for ours."""
    kernel.run(
        "ran = []; f = lambda: ran.append(threading.current_thread().name); get_ipython().events.register('post_execute', f)"
    )
    front = fronts(subshell=True).hello()
    front.until(lambda: front.state)
    before = kernel.literal("len(ran)")
    for _ in range(5):
        front.say({"v": 1, "type": "ask_snapshot"})
    front.until(lambda: len(front.of("snapshot")) >= 2)
    front.hear(0.3)
    assert kernel.literal("len(ran)") == before + 1
    kernel.run("get_ipython().events.unregister('post_execute', f)")


def test_a_forked_child_says_nothing(kernel: Kernel, fronts: Any) -> None:
    """Its calls go their way; the parent's front end hears only of the parent's."""
    front = fronts().hello()
    front.until(lambda: front.state)
    code = (
        "import warnings; warnings.simplefilter('ignore')\nread, write = os.pipe()\n"
        "if not (pid := os.fork()):\n"
        "    text = 'failed'\n"
        "    try: text = nbllm.ask('In the child', model='sim/small', cache='off').source + str(len(ONLOOKERS))\n"
        "    finally: os.write(write, text.encode()); os._exit(0)\n"
        "os.waitpid(pid, 0); child = os.read(read, 99).decode()"
    )
    assert front.run(code, within_s=20)["status"] == "ok"
    assert kernel.value("child") == "'model0'"
    front.run("r = nbllm.ask('In the parent', model='sim/small', cache='off')", "cell-5")
    front.until(lambda: front.state["calls"] and front.state["calls"][0]["cell_id"] == "cell-5")
    assert front.gaps == 0


def test_badges_are_in_the_metadata_of_the_final_display(kernel: Kernel) -> None:
    """Of a streamed answer and of a hit: model, cost, source, call; and nothing of the text."""
    for source in ("model", "cache"):
        assert kernel.run("%%llm -m sim/small -o b\nWhat is a badge?") == "ok"
        shown = kernel.of("display_data", "update_display_data")
        assert [one["metadata"] for one in shown[:-1]] == [{}] * (len(shown) - 1)
        badge = shown[-1]["metadata"]["nbllm"]
        cost = "0" if source == "cache" else kernel.literal("str(b.cost_usd)")
        assert float(badge.pop("cost_usd")) == pytest.approx(float(cost))
        assert badge == {"v": 1, "model": "sim/small", "source": source, "call_id": kernel.literal("b.call_id")}


def test_a_cell_that_broke_off_has_its_badge_too(kernel: Kernel) -> None:
    """Stopped, or cut in mid-answer: the last display names model and call, and what it says of the cost is in the ledger."""
    spent = "str(nbllm.get_client().usage('total').rows[0].cost_usd)"
    cut = "%%llm -m sim/small?fault=cut -o a --cache off --set retries=0\nWhat is a badge?"
    for code, stop in ((STREAM, lambda one: " out · " in one["content"].get("data", {}).get("text/plain", "")), (cut, None)):
        before = kernel.literal(spent)
        assert kernel.run(code, interrupt_when=stop) == "error"
        badge = kernel.of("display_data", "update_display_data")[-1]["metadata"]["nbllm"]
        cost_usd = Decimal(badge["cost_usd"])
        assert cost_usd > 0
        assert cost_usd == Decimal(kernel.literal(spent)) - Decimal(before)
        assert (badge["model"], badge["call_id"], "model") == (*kernel.literal("(a.rung, a.call_id)"), badge["source"])


def test_unloading_says_goodbye_and_leaves_nothing(kernel: Kernel, fronts: Any) -> None:
    """Every comm is closed, the target is gone, no thread and no onlooker is left; loaded again, all is there again."""
    front = fronts().hello()
    front.until(lambda: front.state)
    front.run("r = nbllm.ask('Say hi', model='sim/small')\n%unload_ext nbllm")
    front.until(lambda: any(m["msg_type"] == "comm_close" and m["content"]["comm_id"] == front.comm_id for m in front.seen))
    kernel.run("targets = get_ipython().kernel.comm_manager.targets")
    left = "[t.name for t in threading.enumerate() if t.name == 'nbllm-lab'], ONLOOKERS, 'nbllm' in targets"
    assert kernel.literal(left) == ([], [], False)
    assert kernel.run("%load_ext nbllm") == "ok"
    assert [one["data"]["type"] for one in kernel.of("comm_open")] == ["announce"]
    front.hello()
    front.until(lambda: front.state["session"]["calls"] and not front.state["running"])


def test_a_restarted_kernel_begins_at_nothing_and_shows_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is the process: $0 after a restart, and today's total beside it."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    with running_kernel(tmp_path) as kernel:
        kernel.run("%load_ext nbllm\nimport nbllm; nbllm.ask('Say hi', model='sim/small').text")
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=60)
        front = Front(kernel.manager, "a.ipynb")
        front.run("%load_ext nbllm\nimport nbllm")
        front.hello()
        front.until(lambda: front.state)
        assert front.state["session"]["cost_usd"] == "0"
        front.run("r = nbllm.ask('Say hi', model='sim/small')")
        front.until(lambda: front.state["today"]["calls"] == 2 and front.state["session"]["calls"] == 1)
        assert float(front.state["today"]["cost_usd"]) > 0
        assert front.state["session"]["cost_usd"] == "0", "a hit"
        front.close()
