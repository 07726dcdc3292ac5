"""What a front end of the JupyterLab extension can have done in a real kernel, and what it is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fault_behaviours import drip
from tests.fault_server import FaultServer
from tests.notebook.kernel import Kernel
from tests.notebook.lab.fronts import STREAM
from tests.starvation import Stopwatch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


def test_a_stop_beside_the_running_cell_ends_the_request_within_a_second(kernel: Kernel, fronts: Any) -> None:
    """On a subshell: the upstream request is closed, the cell fails in a few words and keeps what came, the kernel goes on."""
    with FaultServer() as server:
        server.script("slow", [drip(pace_s=0.02)])
        kernel.run(f"nbllm.get_client().configure(endpoints={{'lab': nbllm.Endpoint(base_url='{server.base_url}')}})")
        front = fronts(subshell=True).hello()
        front.until(lambda: front.state)
        asked = front.execute("%%llm -m lab/slow -o part --cache off\nGo on and on.", "cell-9")
        front.until(lambda: any(one["cell_id"] == "cell-9" and one["output_tokens"] > 5 for one in front.state["running"]))
        watch = Stopwatch(others=True)
        result = front.command("stop", call_id=front.state["running"][0]["call_id"])
        assert (result["ok"], result["message"]) == (True, "Stopped.")
        assert server.wait_closed(watch) < 1
        reply = front.replied(asked)
        assert watch.s < 2
    assert (reply["status"], reply["ename"]) == ("error", "CallFailed")
    assert "Stopped from the panel" in reply["evalue"]
    assert kernel.literal("part.interrupted, len(part.text) > 5") == (True, True)
    front.until(lambda: front.state["calls"] and front.state["calls"][0]["cell_id"] == "cell-9")
    assert front.state["calls"][0]["status"] == "cancelled"
    late = front.command("stop", call_id=front.state["calls"][0]["call_id"])
    assert (late["ok"], late["message"]) == (False, "This call has ended already.")


def test_while_messages_wait_for_the_cell_an_interrupt_ends_it(kernel: Kernel, fronts: Any) -> None:
    """Without a subshell a stop is not answered while the cell runs; an interrupt ends the call, and updates come on."""
    front = fronts().hello()
    front.until(lambda: front.state)
    asked = front.execute(STREAM, "cell-3")
    front.until(lambda: front.state["running"])
    front.say({"v": 1, "type": "command", "id": "k9", "do": "stop", "call_id": front.state["running"][0]["call_id"]})
    front.hear(0.3)
    assert front.of("result") == []
    assert front.state["running"]
    kernel.manager.interrupt_kernel()
    assert front.replied(asked)["ename"] == "KeyboardInterrupt"
    front.until(lambda: front.of("result"))
    assert (front.of("result")[0]["id"], front.of("result")[0]["ok"]) == ("k9", False)


def test_two_notebooks_on_one_kernel_are_kept_apart(kernel: Kernel, fronts: Any) -> None:
    """Calls carry their own notebook, and each has its own way to use the cache and its own stored answers; the session is one."""
    one, two = fronts("one.ipynb").hello(), fronts("two.ipynb").hello()
    one.until(lambda: one.state), two.until(lambda: two.state)
    assert one.tag != two.tag
    ask = "r = nbllm.ask('What is it?', model='sim/small'); s = nbllm.ask('Only {}?', model='sim/small')"
    one.run(ask.format("one"), "cell-1"), two.run(ask.format("two"), "cell-2")
    assert one.command("cache_mode", mode="refresh")["ok"]
    one.until(lambda: one.state["cache_mode"] == "refresh")
    one.run(ask.format("one")), two.run(ask.format("two"))

    def sources() -> dict[Any, list[str]]:
        return {tag: [c["source"] for c in two.state["calls"] if c["notebook"] == tag] for tag in (one.tag, two.tag)}

    two.until(lambda: [len(of_one) for of_one in sources().values()] == [4, 4])
    assert sources() == {one.tag: ["model"] * 4, two.tag: ["cache", "cache", "model", "cache"]}
    assert two.state["cache_mode"] is None
    one.until(lambda: one.state["session"] == two.state["session"])
    assert one.command("cache_mode", mode=None)["ok"]
    gone = two.command("clear_cache")
    assert (gone["ok"], gone["data"]) == (True, {"entries": 2})
    one.run(ask.format("one"))
    one.until(lambda: one.state["calls"][0]["notebook"] == one.tag and one.state["cache_mode"] is None)
    assert [c["source"] for c in one.state["calls"][:2]] == ["cache", "model"]


def test_a_budget_a_report_and_a_reason(kernel: Kernel, fronts: Any) -> None:
    """The session's limit is set and shown; the report is Markdown with the same cost; a call says why; nothing holds a prompt."""
    kernel.run("r = nbllm.ask('A secret plan', model='sim/small', cache='off')")
    front = fronts(subshell=True).hello()
    front.until(lambda: front.state)
    result = front.command("set_budget", usd="5.00")
    assert (result["ok"], result["data"]) == (True, {"hard_usd": "5.00"})
    front.until(lambda: any(b["scope"] == "session" and b["hard_usd"] == "5" for b in front.state["budgets"]))
    assert kernel.literal("str(nbllm.get_client().settings.budgets.session_usd)") == "5.00"
    report = front.command("report")["data"]["markdown"]
    assert report.startswith("## LLM session")
    assert "sim/small" in report
    why = front.command("why", call_id=front.state["calls"][0]["call_id"])["data"]["text"]
    assert "answered by: sim/small" in why
    unknown = front.command("why", call_id="nobody")
    assert (unknown["ok"], unknown["message"]) == (False, "The ledger has no such call.")
    assert front.command("set_budget", usd=None)["ok"]
    assert "secret plan" not in repr(front.said)


def test_nonsense_is_ignored_with_one_warning_and_the_rest_goes_on(kernel: Kernel, fronts: Any) -> None:
    """Cut, newer, wrongly typed and misplaced messages change nothing; a command that is not understood is told so."""
    front = fronts()
    front.raw("comm_open", {"target_name": "nbllm", "data": {"v": 2, "type": "hello"}})
    front.hello(v=2)
    for nonsense in ('{"v": 1, "ty', 7, None, [], {}, {"v": 1, "type": "shutdown"}, {"v": 1, "type": "hello", "notebook": 5}):
        front.say(nonsense)
    front.say({"v": 1, "type": "command", "id": "early", "do": "report"})
    assert front.hear(0.3) == []
    assert kernel.literal("ONLOOKERS") == []
    front.hello()
    front.until(lambda: front.state)
    front.say({"v": 1, "type": "command", "id": "k1", "do": "eval", "code": "1/0"})
    front.until(lambda: front.of("result"))
    assert front.of("result") == [
        {
            "v": 1, "type": "result", "id": "k1", "ok": False, "data": None,
            "message": "This version of nbllm does not understand that.",
        }
    ]  # fmt: skip
    for _ in range(50):
        front.say({"v": 1, "type": "pace", "updates_per_s": 99})
    assert front.run("r = nbllm.ask('Say hi', model='sim/small')")["status"] == "ok"
