"""@flow and render: calls recorded as one unit with name and arguments, redacted, and only where recordings are on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

import nbllm
from nbllm import Client, errors, flow
from nbllm.core.ports import Recording
from nbllm.core.recorded import runs_of
from nbllm.flow_arguments import plain
from nbllm.flow_context import current_flow
from nbllm.service.flow_specs import describe
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client

SECRET = "sk-proj-" + "Zx9Yw8Vu7" * 5


@dataclass
class Document:
    """An argument that is none of JSON's types."""

    title: str


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client that records."""
    with fake_client(tmp_path, FakeProvider(default="fine"), recordings=True) as made, nbllm.use(made):
        yield made


@flow
def summary(document: Any, *more: str, style: str = "brief", **rest: object) -> str:
    """Two calls in one flow."""
    first = nbllm.ask(f"Summarise {document} {style}").text
    return first + nbllm.ask(f"Again {more} {rest}").text


@flow
async def translation(text: str, to: str = "de") -> str:
    """An async flow."""
    await asyncio.sleep(0)
    return (await nbllm.aask(f"Translate {text} to {to}")).text


@flow
def outer(text: str) -> str:
    """A flow that calls another, and goes on after it."""
    nbllm.ask("before")
    inner = summary(text)
    nbllm.ask("after")
    return inner


def recorded(client: Client) -> list[Recording]:
    """All recordings, oldest first."""
    return list(client.recordings.newest(100))[::-1]


def test_calls_of_a_flow(client: Client) -> None:
    """Both calls carry the flow's name, one run's id, and every argument by its name, defaults and the rest included."""
    assert summary(Document("Moby Dick"), "a", "b", tone="dry") == "finefine"
    first, second = recorded(client)
    assert first.flow is not None
    assert second.flow is not None
    assert first.flow == second.flow
    assert first.flow["name"] == "summary"
    assert first.flow["arguments"] == {
        "document": "Document(title='Moby Dick')",
        "more": ["a", "b"],
        "style": "brief",
        "rest": {"tone": "dry"},
    }
    summary("x")
    assert recorded(client)[-1].flow["run"] != first.flow["run"]
    assert first.prompt["messages"][0]["content"].startswith("Summarise Document")
    assert first.answer["text"] == "fine"


def test_async_flows_at_once(client: Client) -> None:
    """Flows that run at the same time keep their calls apart, and streams belong to them too."""

    async def main() -> None:
        await asyncio.gather(*(translation(f"text {number}", to=str(number)) for number in range(5)))

    asyncio.run(main())
    found = {r.prompt["messages"][0]["content"]: r.flow for r in recorded(client)}
    assert found == {
        f"Translate text {n} to {n}": {
            "name": "translation",
            "run": found[f"Translate text {n} to {n}"]["run"],
            "arguments": {"text": f"text {n}", "to": str(n)},
            "ended": {"status": "done", "calls": 1},
        }
        for n in range(5)
    }
    assert len({entry["run"] for entry in found.values()}) == 5


def test_nested_flows(client: Client) -> None:
    """A call belongs to the innermost flow; afterwards the outer one goes on, and outside there is none."""
    outer("x")
    nbllm.ask("outside")
    assert [r.flow["name"] if r.flow else None for r in recorded(client)] == ["outer", "summary", "summary", "outer", None]
    assert current_flow() is None


def test_calls_know_the_flows_around_theirs(client: Client) -> None:
    """A call of an inner flow names the outer run too; each run's end says how many calls it opened, inner ones too."""
    outer("x")
    before, first, *_ = recorded(client)
    (around,) = first.flow["outer"]
    assert (around["name"], around["run"], around["arguments"]) == ("outer", before.flow["run"], {"text": "x"})
    assert (around["ended"], first.flow["ended"]) == ({"status": "done", "calls": 4}, {"status": "done", "calls": 2})
    assert [(run.flow, len(run.calls), run.problem) for run in runs_of(recorded(client), ["outer", "summary"])] == [
        ("outer", 4, ""), ("summary", 2, ""),
    ]  # fmt: skip


def test_where_a_call_was_made(client: Client) -> None:
    """A recording says of which session it is."""
    nbllm.ask("x")
    assert [(one.session, one.notebook) for one in recorded(client)] == [(client.session, None)]


def test_a_flow_that_fails(client: Client) -> None:
    """An error leaves the flow as it found the context; what came before it is recorded."""

    @flow
    def failing() -> None:
        nbllm.ask("before")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert current_flow() is None
    assert [r.flow["name"] for r in recorded(client)] == ["failing"]
    assert [run.problem for run in runs_of(recorded(client), ["failing"])] == ["it did not come to its end"]


def test_a_call_that_fails_is_missed(tmp_path: Path) -> None:
    """A run that came to its end without one of its answers says so: it cannot be run again as it was."""

    @flow
    def brave() -> str:
        try:
            nbllm.ask("first", retries=0)
        except errors.CallFailed:
            return nbllm.ask("second").text
        return ""

    with (
        fake_client(tmp_path, FakeProvider(errors.ConnectionFailed("gone"), "fine"), recordings=True) as client,
        nbllm.use(client),
    ):
        assert brave() == "fine"
        (run,) = runs_of(recorded(client), ["brave"])
    assert run.problem == "1 of its 2 calls failed, or are not recorded any more"


class Colour(Enum):
    """A type that JSON holds as a text."""

    RED = "red"


class Book(BaseModel):
    """A model with models in it."""

    title: str = Field(alias="Title")
    pages: list[Document] = []


@flow
def typed(
    one: Document, book: Book, at: datetime, price: Decimal, where: Path, colours: list[Colour], pair: tuple[int, float],
    seen: set[str], maybe: Document | None = None, by_year: dict[int, Colour] | None = None,
) -> str:  # fmt: skip
    """A flow that takes whatever a service takes."""
    one.title += " read"
    return nbllm.ask(f"{one} {book} {at} {price} {where} {colours} {pair} {seen} {maybe} {by_year}").text


def test_arguments_are_recorded_as_the_service_takes_them(client: Client) -> None:
    """Dataclasses, models, dates, decimals, paths, enums and containers of them come back as what they were when the flow began."""
    book = Book(Title="A", pages=[Document("p")])
    given = (
        Document("x"), book, datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), Decimal("1.10"), Path("a/b"), [Colour.RED], (1, 2.0),
        {"z"}, Document("y"), {2026: Colour.RED},
    )  # fmt: skip
    typed(*given)
    (run,) = runs_of(recorded(client), ["typed"])
    assert (run.problem, run.arguments["one"], run.arguments["price"]) == ("", {"title": "x"}, "1.10")
    spec = describe(typed)
    again = spec.parse(run.arguments)
    assert [getattr(again, name) for name in type(again).model_fields] == [Document("x"), *given[1:]]


@pytest.mark.parametrize(
    ("value", "word"),
    [(1, "is an int"), (float("nan"), "JSON"), (object(), "JSON"), ({"title": "x"}, "JSON"), ([1] * 20_000, "JSON")],
)
def test_arguments_that_json_changes_are_doubted(client: Client, value: object, word: str) -> None:
    """An int for a float, no number, a dict for a dataclass, what no type says: recorded to be looked at, and marked."""

    @flow
    def taking(one: float | Document) -> str:
        return nbllm.ask(str(type(one))).text

    taking(value)  # type: ignore[arg-type]  # that is the point
    (run,) = runs_of(recorded(client), ["taking"])
    assert word in run.problem
    assert run.problem.startswith("its argument one ")


def test_a_default_that_json_cannot_hold_is_left_out(client: Client) -> None:
    """A replay has it again from the signature, so the run is as good as any."""
    sentinel: Any = object()

    @flow
    def taking(one: str, two: str = sentinel) -> str:
        return nbllm.ask(f"{one} {two is sentinel}").text

    taking("x")
    (run,) = runs_of(recorded(client), ["taking"])
    assert (run.arguments, run.problem) == ({"one": "x"}, "")


def test_every_door_records_its_flow(client: Client) -> None:
    """Streams, live calls, embeddings and hits are the flow's too."""

    @flow
    def doors() -> None:
        nbllm.ask("a")
        nbllm.ask("a")
        list(nbllm.stream("b"))
        client.start("c").reply  # noqa: B018 - asking for it is waiting for it

    doors()
    assert [(r.flow["name"], r.answer["source"]) for r in recorded(client)] == [
        ("doors", "model"), ("doors", "cache"), ("doors", "model"), ("doors", "model"),
    ]  # fmt: skip


def test_recordings_are_redacted(client: Client, tmp_path: Path) -> None:
    """A key in an argument, a prompt or an answer is in no recording and in no file."""
    summary(f"my key is {SECRET}", api_key=SECRET)
    first = recorded(client)[0]
    assert SECRET not in str(first)
    client.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes() or path.parent.name == "cache", path


def test_nothing_is_recorded_where_recordings_are_off(tmp_path: Path) -> None:
    """Without recordings no text is kept, and an argument's own repr is never asked for."""

    class Heavy:
        def __repr__(self) -> str:
            raise AssertionError("nobody wants to see it")

    @flow
    def quiet(_: Heavy) -> str:
        return nbllm.ask("hello").text

    with fake_client(tmp_path) as client, nbllm.use(client):
        assert quiet(Heavy()) == "ok"
        assert recorded(client) == []
        client.configure(recordings=True)
        assert quiet(Heavy()) == "ok"
        (kept,) = recorded(client)
        assert kept.flow["arguments"] == {"_": "<Heavy>"}


def test_arguments_of_any_shape() -> None:
    """What is too deep, too long or holds itself is named instead of followed."""
    loop: list[Any] = []
    loop.append(loop)
    assert "<list of 1>" in str(plain(loop))
    assert plain(list(range(20_000))) == "<list of 20000>"
    assert plain({1: (None, 2.5, "x")}) == {"1": [None, 2.5, "x"]}
    assert len(plain(b"x" * 5000)) == 1000


def test_a_flow_keeps_its_face() -> None:
    """Name, docstring and signature stay; the mark for the exporter is there; wrong arguments are Python's own error."""
    assert (summary.__name__, summary.__doc__) == ("summary", "Two calls in one flow.")
    assert summary.__nbllm_flow__ == "summary"
    assert asyncio.iscoroutinefunction(translation)
    with pytest.raises(TypeError, match="document"):
        summary()


def test_what_is_no_flow() -> None:
    """Generators and things that are no functions are refused where they are marked."""

    def generator() -> Iterator[str]:
        yield "x"

    async def async_generator() -> AsyncIterator[str]:
        yield "x"

    for what in (generator, async_generator, 5, Document):
        with pytest.raises(errors.InvalidRequest, match="no plain or async function"):
            flow(what)


def test_render() -> None:
    """Render fills a template as %%llm does, and refuses undefined names by name."""
    assert nbllm.render("Summarise {{ doc }} in {{ n }} bullets: { } {# x", doc="A", n=3) == "Summarise A in 3 bullets: { } {# x"
    with pytest.raises(errors.TemplateError, match="dox"):
        nbllm.render("{{ dox }}", doc="A")
