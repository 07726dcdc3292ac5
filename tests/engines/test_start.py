"""A real vLLM started, used, looked at and ended by nbllm.engines itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.engines import Engine, EngineEvent, Plan, plan_launch, start
from nbllm.engines.catalog import ENGINES
from nbllm.engines.supervisor import below
from nbllm.errors import EngineFailed
from tests.engines.server import CONTEXT_TOKENS, PYTHON, metrics_of
from tests.engines.vllm_kernel import VllmKernel
from tests.engines_room.processes import linux_only, wait_until_ended

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]
CACHE = re.compile(r"KV cache size: ([\d,]+) tokens, Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x")
OPTIONS = {"max_model_len": CONTEXT_TOKENS, "enforce_eager": True, "cpu_kvcache_gb": 1, "offline": True}


def plan_for(model_dir: Path, name: str | None = None) -> Plan:
    """The launch of the tiny model."""
    return plan_launch("vllm", str(model_dir), OPTIONS, name=name, served_name="tiny", python=PYTHON, usd_per_hour=1.2)


@pytest.fixture(scope="module")
def plan(model_dir: Path) -> Plan:
    """The one that `started` runs by."""
    return plan_for(model_dir)


def test_it_is_started_watched_and_answers(started: Engine, events: list[EngineEvent], tmp_path: Path) -> None:
    """Ready after a completion, progress on the way; the endpoint answers over the road, with the engine's own metrics."""
    assert [events[0].stage, events[-1].stage] == ["launched", "ready"]
    assert any("Starting" in line or "vLLM" in line for event in events for line in event.lines)
    with Client(endpoints={started.name: started.endpoint}, home=tmp_path / "home") as client:
        reply = client.ask("What is grandeur?", model=started.model, temperature=0)
        assert reply.text
        assert not reply.usage.estimated
        status = started.status()
    assert (status.state, status.running, status.waiting) == ("ready", 0, 0)
    assert status.kv_cache_use is not None
    assert status.tokens_per_s is not None
    assert status.model == "vllm/tiny"


def test_vllm_has_every_count_that_is_asked_for(started: Engine) -> None:
    """The names of the table's row are those of its page, the ones that tell a long prompt from a wedge too."""
    names = ENGINES["vllm"].metrics
    wanted = {names.running, names.waiting, names.kv_cache_use, names.output_tokens, names.input_tokens, *names.work}
    assert wanted - metrics_of(started).keys() == set()


def test_the_arithmetic_is_what_vllm_found(model_dir: Path, started: Engine, events: list[EngineEvent]) -> None:
    """Tokens in the KV cache and requests of full length at once: to the token, what the plan said and what vLLM's log says."""
    told = [found for event in events for line in event.lines if (found := CACHE.search(line))]
    assert told, started.log_tail(400)
    sizing = plan_for(model_dir, "again").fit.sizing
    assert sizing is not None
    assert int(told[0][1].replace(",", "")) == sizing.kv_tokens
    assert float(told[0][2]) == pytest.approx(sizing.sequences, abs=0.01)


def test_a_model_that_is_not_there_is_said_in_vllms_words(tmp_path: Path, model_dir: Path) -> None:
    """A folder without a model: the reason is vLLM's, in a few lines."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EngineFailed) as caught:
        start(plan_for(empty, "empty"))
    assert caught.value.exit_code
    assert len(str(caught.value).splitlines()) <= 7
    assert "config" in str(caught.value) or "model" in str(caught.value)


@linux_only
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_served_from_a_notebook_it_answers_and_is_gone_when_the_kernel_is_killed(vllm_kernel: VllmKernel) -> None:
    """%serve start vllm, a %%llm cell on it, kill -9 of the kernel: server, engine core and workers are gone within 5 s."""
    vllm_kernel.runs("%%llm -m vllm/tiny -t 0 -o answer\nWhat is grandeur?")
    assert vllm_kernel.kernel.value("bool(answer.text), answer.cost_usd == 0") == "(True, True)"
    started = below(vllm_kernel.process.pid)
    assert len(started) >= 4  # supervisor, server, engine core, and what these have started
    vllm_kernel.kill()
    wait_until_ended(started, 0.5)


def test_a_cause_that_one_of_its_processes_wrote_is_told(model_dir: Path) -> None:
    """More memory than there is, of which the server itself only says that another process has failed: the cause is found above."""
    plan = plan_launch(
        "vllm", str(model_dir), {**OPTIONS, "cpu_kvcache_gb": 90_000}, served_name="tiny", python=PYTHON, force=True, name="huge"
    )
    with pytest.raises(EngineFailed, match="less memory is free than it would take") as caught:
        start(plan)
    assert caught.value.reason == "out_of_memory"
    assert "requested memory" in str(caught.value)
