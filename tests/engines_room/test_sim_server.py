"""The simulated server over real HTTP, started as an engine: the road, the openai client, metrics, faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nbllm import Client
from nbllm.engines import Engine, plan_launch, start
from nbllm.engines.door import Door
from nbllm.engines.status import names_on, samples
from nbllm.engines.watch import Rhythm
from nbllm.errors import EngineNotPossible
from nbllm.providers.served_body import BadBody, body_of, chat_body

TEXT = "Summarise: The cat sat on the mat. Dogs bark at night. Birds sing in the morning."


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One server for the tests of this file, without waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBLLM_SIM_SPEED", "0")
        # The watch does not look: no token but those of the tests is counted.
        running = start(plan_launch("sim", "large", {"max_num_seqs": 8}), rhythm=Rhythm(every_s=600.0))
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """The engine of this file lives as long as its tests."""


@pytest.fixture
def client(engine: Engine, tmp_path: Path) -> Iterator[Client]:
    """A client that has the server as an endpoint."""
    with Client(endpoints={engine.name: engine.endpoint}, home=tmp_path / "home") as made:
        yield made


def test_the_road_reaches_it_as_any_engine(client: Client, engine: Engine) -> None:
    """Whole and streamed answers are the same text with the server's own counts; a repeat comes from the cache."""
    whole = client.ask(TEXT, model=engine.model)
    stream = client.stream(TEXT, model=engine.model, cache="off")
    assert len(list(stream)) > 1
    assert stream.reply.text == whole.text
    assert whole.usage == stream.reply.usage
    assert not whole.usage.estimated
    assert client.ask(TEXT, model=engine.model).source == "cache"


def test_it_answers_what_the_built_in_model_answers(client: Client, engine: Engine) -> None:
    """Behind HTTP it is the same simulated model: a flow gives the same text on either."""
    assert client.ask(TEXT, model=engine.model).text == client.ask(TEXT, model="sim/large").text


def test_schema_logprobs_and_tools_pass_through(client: Client, engine: Engine) -> None:
    """What the wire carries arrives and comes back."""
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    assert client.ask(TEXT, model=engine.model, schema=schema).data["mood"] in {"good", "bad"}
    entries = client.ask("Say hello to me", model=engine.model, logprobs=2).logprobs
    assert entries
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    reply = client.ask("Look up the weather", model=engine.model, tools=[tool])
    assert reply.finish_reason in {"tool_calls", "stop"}


def test_the_openai_client_works_unchanged(engine: Engine) -> None:
    """The openai SDK lists models, asks, streams, and maps a refused key to its own class."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=engine.endpoint.base_url, api_key=engine.endpoint.api_key, max_retries=0) as sdk:
        assert [model.id for model in sdk.models.list()] == ["large"]
        said = sdk.chat.completions.create(model="large", messages=[{"role": "user", "content": TEXT}])
        assert said.choices[0].message.content
        assert said.system_fingerprint == "simulated"
        chunks = list(sdk.chat.completions.create(model="large", messages=[{"role": "user", "content": TEXT}], stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said.choices[0].message.content
        with pytest.raises(openai.NotFoundError):
            sdk.chat.completions.create(model="lage", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.create(model="large", messages=[])
    with (
        openai.OpenAI(base_url=engine.endpoint.base_url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_its_metrics_have_vllms_names_and_count(engine: Engine, client: Client) -> None:
    """What the table of engines names is there, and tokens add up."""
    door = Door(engine.endpoint.base_url)

    def written() -> float:
        page = door.ask("/metrics", limit_s=2).body.decode()
        assert names_on(page).running == "vllm:num_requests_running"
        return samples(page)["vllm:generation_tokens_total"][0]

    before = written()
    reply = client.ask("What is new?", model=engine.model)
    assert written() - before == reply.usage.output_tokens
    status = engine.status()
    assert (status.running, status.waiting, status.kv_cache_use) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "no JSON"), (b"[]", "must be a JSON object"), (b'{"messages": []}', "messages"),
        (b'{"messages": [{"role": "user"}], "max_tokens": 0}', "max_tokens"),
        (b'{"messages": [{"role": "user"}], "temperature": "hot"}', "temperature"),
        (b'{"messages": [{"role": "user"}], "stop": [1]}', "stop"), (b'{"messages": [{"role": "user"}], "n": 2}', "n must be 1"),
        (b'{"messages": [{"role": "user"}], "tools": {}}', "tools"),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused_by_field(body: bytes, problem: str) -> None:
    """Nothing that is no request reaches the model."""
    with pytest.raises(BadBody, match=problem):
        chat_body(body_of(body))


def test_a_simulated_model_that_does_not_exist_is_refused_before_the_launch() -> None:
    """Its name and options are those of sim/."""
    with pytest.raises(EngineNotPossible, match="no simulated model 'lage'"):
        plan_launch("sim", "lage")
    assert plan_launch("sim", "sim/small?seed=3").names == ("small",)
