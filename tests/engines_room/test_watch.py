"""Whether an engine completes: attached ones too, when somebody asks, and without mistaking a long prompt for a wedge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from nbllm import Client
from nbllm.engines import Engine, Plan, attach, plan_launch, running, start
from nbllm.engines.catalog import ENGINES
from nbllm.engines.door import Answer, Door, NoAnswer, TooLate
from nbllm.engines.ready import Asked
from nbllm.engines.status import metrics_of, names_on
from nbllm.engines.watch import Rhythm, Watch
from tests.starvation import Stopwatch

MakePlan = Callable[..., Plan]

QUICK = Rhythm(every_s=0.02, limit_s=0.1)


class Scripted(Door):
    """A server by script: each look at its metrics takes the next of `pages`, the last for ever; answers from look `answers_at`."""

    def __init__(self, *pages: str | None, answers_at: int | None = None) -> None:
        super().__init__("http://127.0.0.1:1/v1")
        object.__setattr__(self, "told", {"looks": 0, "asked": 0, "pages": pages, "at": answers_at})

    told: dict[str, Any]

    def ask(self, path: str, body: Any = None, *, limit_s: float, tick: Callable[[], object] | None = None) -> Answer:
        """Give a page, or one token once so many looks were taken."""
        if path == "/metrics":
            pages = self.told["pages"]
            page = pages[min(self.told["looks"], len(pages) - 1)]
            self.told["looks"] += 1
            if page is None:
                raise NoAnswer("gone")
            return Answer(200, page.encode())
        self.told["asked"] += 1
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            if self.told["at"] is not None and self.told["looks"] >= self.told["at"]:
                return Answer(200, b'{"choices": [{}]}')
            time.sleep(0.005)
            if tick is not None:
                tick()
        raise TooLate("late")


def vllm(*, output: int = 7, steps: int = 3, use: float = 0.0, waiting: int = 0) -> str:
    """A page of vLLM's."""
    return (
        f'vllm:num_requests_running{{e="0"}} 1\nvllm:num_requests_waiting{{e="0"}} {waiting}\n'
        f'vllm:kv_cache_usage_perc{{e="0"}} {use}\nvllm:generation_tokens_total{{e="0"}} {output}\n'
        f'vllm:prompt_tokens_total{{e="0"}} 100\nvllm:iteration_tokens_total_count{{e="0"}} {steps}\n'
    )


def watch(door: Scripted, rhythm: Rhythm = QUICK) -> Watch:
    """A watch of it that nobody started."""
    return Watch(door, Asked("m"), None, rhythm)


@pytest.mark.parametrize("growing", ["steps", "use"])
def test_a_long_prompt_is_no_wedge(growing: str) -> None:
    """Not one token for many times the limit: steps go on, or the cache fills, so the question waits and the engine is ready."""
    pages = [vllm(**{growing: n / 100 if growing == "use" else n}) for n in range(60)]
    door = Scripted(*pages, answers_at=40)
    looking = watch(door)
    looking.look()  # the first look knows of no movement yet
    assert door.told["asked"] == 1
    assert door.told["looks"] >= 40
    assert (looking.wedged, looking.silent) == (False, False)


def test_nothing_moves_and_requests_pile_up() -> None:
    """Requests that come are no work: an engine whose counts stand still while it has a question is wedged, after the limit."""
    door = Scripted(*(vllm(waiting=n) for n in range(500)))
    looking = watch(door)
    took = Stopwatch(others=True)
    looking.look()
    assert looking.wedged
    assert took.all_s >= 0.1
    assert took.s < 1.0


def test_a_wedge_in_the_middle_of_a_long_prompt_is_seen_as_soon() -> None:
    """Movement at first, then none: the limit counts from the last that moved, not from the end of a patience of minutes."""
    looking = watch(Scripted(*(vllm(steps=n) for n in range(6)), vllm(steps=6)))
    took = Stopwatch(others=True)
    looking.look()
    assert looking.wedged
    assert took.s < 1.0


def test_a_busy_engine_is_not_asked_and_an_idle_one_is() -> None:
    """What moves between looks answers for itself; a wedge that is over is no wedge any more."""
    door = Scripted(vllm(output=1), vllm(output=9), vllm(output=9), vllm(output=9), answers_at=3)
    looking = watch(door)
    looking.wedged = True
    assert looking.metrics() is not None
    looking.look()  # knows of one page: asks
    assert (door.told["asked"], looking.wedged) == (1, False)
    busy = Scripted(*(vllm(output=n) for n in range(9)))
    looking = watch(busy)
    looking.look_now()
    assert (busy.told["asked"], looking.wedged) == (0, False)


def test_a_server_without_metrics_is_asked() -> None:
    """Nothing to look at: the answer, or the limit, says it."""
    for at, wedged in ((0, False), (None, True)):
        looking = watch(Scripted("", answers_at=at))
        looking.look_now()
        assert looking.wedged is wedged


def test_who_asks_again_at_once_gets_what_was_seen() -> None:
    """A status in every cell does not ask for a token in every cell."""
    door = Scripted(vllm(), answers_at=0)
    looking = watch(door, Rhythm(every_s=60.0, limit_s=0.1))
    for _ in range(5):
        looking.look_now()
    assert door.told["asked"] == 1


def test_an_attached_server_that_stops_completing_is_shown_as_wedged(fake: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's server answers /health and no more completions: its next status says so, and says it is over later."""
    with start(fake("wedges_later")) as engine:  # its own first token was its last
        monkeypatch.setattr("nbllm.engines.attaching.first_token", lambda *_: Asked("tiny"))
        monkeypatch.setenv("LAB_KEY", str(engine.endpoint.api_key))
        with attach(engine.endpoint.base_url, name="lab", api_key_env="LAB_KEY", rhythm=QUICK) as mine:
            status = mine.status()
            assert status.state == "wedged"
            assert "completes nothing" in status.trouble
    assert running() == []


def test_an_attached_server_is_seen_within_thirty_seconds_of_asking() -> None:
    """By default: the metrics before, the question, the metrics after."""
    usual = Rhythm()
    assert 2 * 2.0 + usual.limit_s + usual.every_s / 2 + 2.0 < 30


def test_the_simulated_server_works_on_others_while_ours_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """One seat, taken by a long stream: the attached server's status is ready, seen by its steps."""
    with start(plan_launch("sim", "large", {"max_num_seqs": 1}), rhythm=Rhythm(every_s=600.0)) as engine:
        monkeypatch.setenv("SIM_KEY", str(engine.endpoint.api_key))
        quick = Rhythm(every_s=0.05, limit_s=0.6)
        with (
            attach(engine.endpoint.base_url, name="lab", api_key_env="SIM_KEY", rhythm=quick) as mine,
            Client(endpoints={engine.name: engine.endpoint}, home=tmp_path) as client,
        ):
            enough, begun = threading.Event(), threading.Event()

            def read() -> None:
                with client.stream("Tell a long story. " * 40, model=engine.model, cache="off") as stream:
                    for _ in stream:
                        begun.set()
                        if enough.is_set():
                            break

            reader = threading.Thread(target=read)
            reader.start()
            assert begun.wait(30)
            assert mine.status().state == "ready"
            enough.set()
            reader.join()


def test_ollama_is_attached_without_loading_its_model_at_each_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads with a question and unloads when none comes: its status asks whether it answers, no more."""
    asked: list[str] = []

    def ask(_: Door, path: str, body: Any = None, **__: Any) -> Answer:
        asked.append(path)
        told = {"/api/version": b'{"version": "0.6"}', "/v1/models": b'{"data": [{"id": "tiny"}]}',
                "/v1/chat/completions": b'{"choices": [{}]}'}  # fmt: skip
        return Answer(200, told[path]) if path in told else Answer(404, b"")

    monkeypatch.setattr(Door, "ask", ask)
    with attach("http://127.0.0.1:11434/v1", name="mine") as mine:
        asked.clear()
        assert isinstance(mine, Engine)
        assert mine.status().state == "ready"
    assert asked == ["/metrics", "/v1/models"]


@pytest.mark.parametrize("name", [name for name, kind in ENGINES.items() if kind.metrics.work])
def test_counts_that_move_are_read_for_each_engine(name: str) -> None:
    """Each of the engine's own names counts as work; requests that run or wait do not."""
    names = ENGINES[name].metrics
    page = "\n".join(f'{one}{{a="b"}} 1' for one in (names.running, names.waiting))
    assert metrics_of(page, names_on(page)).work == ()
    for one in (names.output_tokens, names.input_tokens, names.kv_cache_use, *names.work):
        assert metrics_of(f"{page}\n{one} 5", names).work == (5.0,)
