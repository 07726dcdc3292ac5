"""ask and aask, stream and astream, embed and aembed: one behaviour, held to one table of cases."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict
from pydantic import BaseModel

from nbllm import Client, errors
from nbllm.core.messages import Attempt, Delta, Ending, ToolCallFragment, Usage
from nbllm.core.reply import Reply
from nbllm.testing import FakeProvider, Script, Step, offline
from tests.client.helpers import fake_client, our_threads, rows, until


class City(BaseModel):
    """A schema."""

    name: str
    people: int


def short(text: Any) -> bool:
    """A check that wants short answers."""
    return len(str(text)) < 20


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TOOL_CALL = (
    Delta(tool_call=ToolCallFragment(0, "call_1", "weather", '{"city":')),
    Delta(tool_call=ToolCallFragment(0, arguments=' "Bern"}')),
)
FINE = Script(pieces=("One ", "two."))


@dataclass(frozen=True)
class Case:
    """What the provider plays, what is asked, how often, and how the last time ends."""

    name: str
    steps: tuple[Step, ...]
    options: dict[str, Any] = field(default_factory=dict)
    prompt: Any = "hello"
    times: int = 1
    error: type[BaseException] | None = None
    values: dict[str, Any] = field(default_factory=dict)
    """Settings of the client."""


CASES = [
    Case("miss", (FINE,)),
    Case("hit", (FINE,), times=2),
    Case("hit that is refreshed", (FINE, "anew"), {"cache": "refresh"}, times=2),
    Case("cache off", (FINE, "again"), {"cache": "off"}, times=2),
    Case("messages", (FINE,), prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]),
    Case("reasoning", ((Delta(reasoning="Hm. "), Delta(text="Yes.")),)),
    Case("every option", (FINE,), {
        "system": "Be brief.", "temperature": 0.5, "max_tokens": 100, "top_p": 0.9, "seed": 7, "stop": "END", "logprobs": 2,
        "extra": {"top_k": 5}, "sample": 3, "partition": "p", "feature": "f", "user": "u", "tags": ("t",), "ttl_s": 60,
    }),
    Case("tools", (TOOL_CALL,), {"tools": [TOOL]}),
    Case("tools, hit", (TOOL_CALL,), {"tools": [TOOL]}, times=2),
    Case("schema", ('{"name": "Bern", "people": 134000}',), {"schema": City}),
    Case("schema, hit", ('{"name": "Bern", "people": 134000}',), {"schema": City}, times=2),
    Case("schema, repaired", ("no JSON", '{"name": "Bern", "people": 1}'), {"schema": City}),
    Case("schema, given up", ("no", "no", "no"), {"schema": City}, error=errors.ValidationFailed),
    Case("check", ("fine",), {"check": short}),
    Case("check, hit", ("fine",), {"check": short}, times=2),
    Case("check, failed", ("x" * 40,) * 3, {"check": short}, error=errors.ValidationFailed),
    Case("no schema", (), {"schema": 5}, error=errors.SchemaError),
    Case("empty prompt", (), prompt=" ", error=errors.UnusableText),
    Case("unknown option", (), {"temprature": 1}, error=errors.InvalidRequest),
    Case("unknown model", (), {"model": "nobody/m"}, error=errors.UnknownModel),
    Case("retried", (errors.ServerFailed, FINE)),
    Case("503 for ever", (errors.ServerFailed,) * 3, error=errors.AllRungsFailed),
    Case("no retries", (errors.ServerFailed,), {"retries": 0}, error=errors.AllRungsFailed),
    Case("refused by a filter", (errors.Refused,), error=errors.Refused),
    Case("wrong key", (errors.AuthenticationFailed,), error=errors.AuthenticationFailed),
    Case("next rung", (errors.ModelNotFound, FINE), {"model": ["sim/small", "sim/large"]}),
    Case("static answer", (errors.ModelNotFound,), {"static": "Come back later."}),
    Case("truncated", (Script(pieces=("One ",), then=Ending(finish_reason="length", usage=Usage(3, 1))),)),
    Case("truncated to nothing", (Script(then=Ending(finish_reason="length")),), error=errors.Truncated),
    Case("soft budget", (FINE,), values={"budget_session_usd": "0.01", "budget.soft": 0.00001}),
    Case("hard budget", (), {"budget_usd": "0.0000001"}, error=errors.BudgetExceeded),
    Case("deadline", (Script(hang=True),), {"deadline_s": 0.05}, error=errors.DeadlineExceeded),
]  # fmt: skip


@dataclass
class Outcome:
    """What a door gave, fit to be compared with another's."""

    reply: dict[str, Any] | None
    error: tuple[str, str, str] | None
    warned: list[str]
    pieces: list[str]


def plain_reply(reply: Reply) -> dict[str, Any]:
    """Every field of a reply but ids and times."""
    shown = asdict(reply)
    shown["attempts"] = [plain_attempt(attempt) for attempt in reply.attempts]
    for name in ("call_id", "latency_s", "ttft_s", "age_s", "saved_s"):
        shown[name] = shown[name] is None
    return shown


def plain_attempt(attempt: Attempt) -> dict[str, Any]:
    """Every field of an attempt but ids and times."""
    shown = asdict(attempt)
    for name in ("attempt_id", "call_id", "started_at", "latency_s", "ttft_s", "waited_s"):
        shown[name] = shown[name] is None
    return shown


def plain_rows(client: Client) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every call and its attempts, but for ids and times."""
    found = []
    for row in rows(client):
        shown = asdict(row)
        for name in ("call_id", "session", "started_at", "latency_s", "ttft_s", "saved_s"):
            shown[name] = shown[name] is None
        found.append((shown, [plain_attempt(attempt) for attempt in client.ledger.attempts(row.call_id)]))
    return found


def without_times(text: str) -> str:
    """A message without the waits in it, which chance decides."""
    return re.sub(r"\d+\.\d+ s", "N s", text)


def outcome(call: Callable[[list[str]], Reply], times: int) -> Outcome:
    """Call that often and return how it ended the last time."""
    seen = Outcome(None, None, [], [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            seen.pieces = []
            try:
                seen.reply = plain_reply(call(seen.pieces))
            except errors.NbllmError as exc:
                seen.error = (type(exc).__name__, without_times(exc.summary), exc.hint)
    seen.warned = [str(warning.message) for warning in caught]
    assert all(warning.filename == __file__ for warning in caught), "a warning points at the caller's line"
    return seen


def doors(client: Client, case: Case, *, watched: bool) -> dict[str, Callable[[list[str]], Reply]]:
    """The sync and the async door as functions alike."""

    def ask(_: list[str]) -> Reply:
        return client.ask(case.prompt, **case.options)

    def aask(_: list[str]) -> Reply:
        async def main() -> Reply:
            return await client.aask(case.prompt, **case.options)

        return asyncio.run(main())

    def stream(pieces: list[str]) -> Reply:
        with client.stream(case.prompt, **case.options) as answer:
            for piece in answer:
                pieces.append(piece)
        return answer.reply

    def astream(pieces: list[str]) -> Reply:
        async def main() -> Reply:
            async with client.astream(case.prompt, **case.options) as answer:
                async for piece in answer:
                    pieces.append(piece)
            return answer.reply

        return asyncio.run(main())

    return {"sync": stream, "async": astream} if watched else {"sync": ask, "async": aask}


@pytest.mark.parametrize("watched", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@offline()
def test_doors(case: Case, watched: bool, tmp_path: Path) -> None:
    """A sync door and its async twin give the same reply, the same error, the same pieces, warnings, wire and ledger rows."""
    seen = {}
    for kind in ("sync", "async"):
        fake = FakeProvider(*case.steps, strict=True)
        with fake_client(tmp_path / kind, fake, **case.values) as client:
            got = outcome(doors(client, case, watched=watched)[kind], case.times)
            wires = [(wire.rung.id, wire.content, wire.streamed) for wire in fake.requests]
            seen[kind] = (got, wires, plain_rows(client))
        fake.assert_done()
    assert seen["sync"] == seen["async"]
    got, wires, booked = seen["sync"]
    assert (got.error or ("",))[0] == (case.error.__name__ if case.error else "")
    assert (got.reply is None) == (case.error is not None)
    assert {streamed for _, _, streamed in wires} <= {watched}
    assert {row["status"].value for row, _ in booked} <= {"done", "failed"}
    if watched and got.reply is not None:
        assert "".join(got.pieces).endswith(got.reply["text"])


def test_whole_and_streamed_answers_agree(tmp_path: Path) -> None:
    """The same answer, streamed or whole, has the same text, usage and cost; only the first token's time is known of a stream."""
    fake = FakeProvider(default=FINE)
    with fake_client(tmp_path, fake) as client:
        whole = client.ask("hello", cache="off")
        stream = client.stream("hello", cache="off")
        assert list(stream) == ["One ", "two."]
    assert (whole.text, whole.usage, whole.cost_usd) == (stream.reply.text, stream.reply.usage, stream.reply.cost_usd)
    assert whole.ttft_s is None
    assert stream.reply.ttft_s is not None


EMBEDDINGS = [
    Case("miss", ("",), prompt=["a", "b"]),
    Case("hit", ("",), prompt=["a", "b"], times=2),
    Case("one text", (), prompt="a", error=errors.InvalidRequest),
    Case("no text", (), prompt=[], error=errors.InvalidRequest),
    Case("bytes", (), prompt=b"ab", error=errors.InvalidRequest),
    Case("a number", (), prompt=7, error=errors.InvalidRequest),
    Case("an empty text", (), prompt=["a", ""], error=errors.UnusableText),
    Case("no text at all", (), prompt=["a", 5], error=errors.InvalidRequest),
    Case("temperature", (), {"temperature": 1}, prompt=["a"], error=errors.InvalidRequest),
    Case("static", (), {"static": "x"}, prompt=["a"], error=errors.InvalidRequest),
    Case("503 for ever", (errors.ServerFailed,) * 3, prompt=["a"], error=errors.AllRungsFailed),
    Case("a generator of texts", ("",), prompt=("a", "b")),
]


@pytest.mark.parametrize("case", EMBEDDINGS, ids=lambda case: case.name)
@offline()
def test_embeddings(case: Case, tmp_path: Path) -> None:
    """Embed and aembed give the same vectors, errors and rows."""
    seen = {}
    for kind in ("sync", "async"):
        fake = FakeProvider(*case.steps, strict=True)
        with fake_client(tmp_path / kind, fake) as client:
            result: Any = None
            for _ in range(case.times):
                try:
                    vectors = (
                        client.embed(case.prompt, **case.options)
                        if kind == "sync"
                        else asyncio.run(client.aembed(case.prompt, **case.options))
                    )
                    result = (vectors.dtype.name, vectors.shape, vectors.tolist())
                except errors.NbllmError as exc:
                    result = (type(exc).__name__, without_times(str(exc)))
            seen[kind] = (result, [wire.content for wire in fake.requests], plain_rows(client))
        fake.assert_done()
    assert seen["sync"] == seen["async"]
    result, _, booked = seen["sync"]
    if case.error is None:
        assert result[:2] == ("float32", (2, 8))
        assert {row["kind"] for row, _ in booked} == {"embed"}
    else:
        assert result[0] == case.error.__name__


def interrupted(client: Client, fake: FakeProvider, kind: str, *, watched: bool) -> None:
    """Start a call that hangs after its first piece, and give it up in the way of its door."""
    if kind == "async":

        async def main() -> None:
            async def consume() -> None:
                if watched:
                    async for _ in client.astream("hello"):
                        pass
                else:
                    await client.aask("hello")

            task = asyncio.get_running_loop().create_task(consume())
            while not fake.in_flight:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        return
    live = client.start("hello", watched=watched)
    events = live.events(0.005)
    next(events)
    until(lambda: fake.in_flight)
    for event in events:
        if event is None:
            break
    events.close()
    with pytest.raises(errors.CallFailed, match="stopped"):
        assert live.reply


@pytest.mark.parametrize("watched", [False, True], ids=["whole", "streamed"])
def test_cancelled(watched: bool, tmp_path: Path) -> None:
    """A call that is given up ends upstream; its row is cancelled, and says what came and what that is estimated to cost."""
    seen = {}
    for kind in ("sync", "async"):
        fake = FakeProvider(Script(pieces=("One two three ",), hang=True))
        with fake_client(tmp_path / kind, fake) as client:
            interrupted(client, fake, kind, watched=watched)
            assert fake.in_flight == 0, "the caller goes on when upstream is closed"
            assert fake.cancelled == 1
            seen[kind] = plain_rows(client)
            assert all(line.reserved_usd == 0 for line in client.budget_lines())
            assert client.ask("and now?").text == "ok", "the client is usable"
        assert our_threads() == []
    assert seen["sync"] == seen["async"]
    ((call, (attempt,)),) = seen["sync"]
    assert (call["status"].value, attempt["status"].value, attempt["sent"]) == ("cancelled", "cancelled", True)
    assert (attempt["cost_basis"], attempt["cost_usd"] > 0) == ("estimated", True)
    assert attempt["usage"].output_tokens == (4 if watched else 0)


def test_a_hit_that_cannot_be_booked_at_once_is_delivered_by_both_doors(tmp_path: Path) -> None:
    """A ledger that another program has locked keeps neither door from giving its hit."""
    with fake_client(tmp_path) as client:
        client.ask("hello")
        lock = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        unlock = threading.Timer(0.2, lock.execute, ["COMMIT"])
        unlock.start()
        assert client.ask("hello").source == "cache"
        assert asyncio.run(client.aask("hello")).source == "cache"
        unlock.join()
        lock.close()
        assert [row.source for row in rows(client)] == ["model", "cache", "cache"]
