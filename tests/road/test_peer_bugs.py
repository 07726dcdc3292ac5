"""Bugs that other libraries are known for, on the whole road over real sockets: each must not be ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client, errors
from nbllm.core import waits
from nbllm.core.reply import Reply
from tests import fault_behaviours as f
from tests.fault_behaviours import Behaviour
from tests.fault_server import FaultServer
from tests.road.invariants import ALL, SECRET, at_most, check_cache, check_money, check_no_secret, check_rows, endpoint
from tests.starvation import Stopwatch


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    waits.skip()
    yield
    waits.unskip()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def client(server: FaultServer, tmp_path: Path) -> Iterator[Client]:
    with Client(endpoints={"one": endpoint(server)}, ladder=["one/m"], home=tmp_path, deadline_s=5) as opened:
        assert not opened.ledger.calls(ALL, limit=1)
        yield opened


def outcome(client: Client, text: str = "hello", **options: object) -> Reply | errors.NbllmError:
    try:
        return client.ask(text, **options)
    except errors.NbllmError as exc:
        return exc


@pytest.mark.parametrize("watched", [False, True])
def test_peer_bug_a_200_with_html_is_no_empty_answer(client: Client, server: FaultServer, watched: bool) -> None:
    """A proxy's page with status 200 is BadAnswer on every try, never a Reply without text."""
    server.script("m", [f.html()])
    with pytest.raises(errors.AllRungsFailed) as caught:
        assert client.start("hello", watched=watched).reply
    assert {type(exc) for exc in caught.value.exceptions} == {errors.BadAnswer}
    assert not list(client.store.entries())


def test_peer_bug_a_truncated_stream_is_not_reported_as_stop(client: Client, server: FaultServer) -> None:
    """A stream that ends without a finish reason is interrupted: its row says failed and no finish, its text is a partial."""
    server.script("m", [f.cut()])
    with pytest.raises(errors.StreamInterrupted) as caught, client.stream("hello") as stream:
        list(stream)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "One two "
    (call,) = client.ledger.calls(ALL, limit=5)
    assert (call.status.value, call.finish_reason) == ("failed", None)
    assert [a.finish_reason for a in client.ledger.attempts(call.call_id)] == [None]


@pytest.mark.parametrize(
    ("behaviour", "watched"),
    [
        (f.error(500), False),
        (f.finish("length"), False),
        (f.finish("length"), True),
        (f.finish("content_filter"), False),
        (f.cut(), True),
        (f.error_in_band(), True),
        (f.empty(), False),
    ],
)
def test_peer_bug_errors_and_truncations_are_not_cached(
    client: Client, server: FaultServer, behaviour: Behaviour, watched: bool
) -> None:
    """After an error or a cut answer the same question is asked again, and only the whole answer is kept."""
    server.script("m", [behaviour])
    first = client.start("hello", watched=watched, retries=0)
    with contextlib.suppress(errors.NbllmError):
        assert first.reply.truncated
    assert not list(client.store.entries())
    server.script("m", [f.ok("whole")])
    again, hit = client.ask("hello"), client.ask("hello")
    assert (again.text, again.source) == ("whole", "model")
    assert (hit.text, hit.source, hit.cost_usd) == ("whole", "cache", 0)
    check_cache(client)


def test_peer_bug_a_cancelled_stream_has_a_row(client: Client, server: FaultServer) -> None:
    """Whoever leaves a stream in its middle leaves a closed row: cancelled, with an estimated cost for what came."""
    server.script("m", [f.drip()])
    with client.stream("hello") as stream:
        assert next(iter(stream))
    (call,) = client.ledger.calls(ALL, limit=5)
    (attempt,) = client.ledger.attempts(call.call_id)
    assert (call.status.value, attempt.status.value, attempt.cost_basis) == ("cancelled", "cancelled", "estimated")
    assert attempt.cost_usd is not None
    assert attempt.cost_usd > 0
    check_rows(client, server, {"one/m": "m"})
    check_money(client)


def test_peer_bug_a_key_echoed_by_a_401_is_not_shown(client: Client, server: FaultServer, tmp_path: Path) -> None:
    """A provider that repeats the key in its 401 does not get it into the error, the ledger or any file."""
    server.script("m", [f.error(401, f"Incorrect API key provided: {SECRET}. You can find your key at example.test.")])
    with pytest.raises(errors.AuthenticationFailed) as caught:
        client.ask("hello")
    shown = (str(caught.value), repr(caught.value), repr(caught.value.__cause__), *getattr(caught.value, "__notes__", ()))
    check_no_secret(tmp_path, *shown)
    again = outcome(client)
    assert isinstance(again, errors.AuthenticationFailed)
    check_no_secret(tmp_path, str(again), repr(again))
    assert server.count("m") == 1


@pytest.mark.parametrize(
    ("behaviour", "options", "error", "limit_s"),
    [
        (f.stall("headers"), {"ttft_s": 0.1}, errors.FirstTokenTimeout, 0.1),
        (f.stall("tokens"), {"idle_s": 0.1}, errors.StreamInterrupted, 0.1),
        (f.drip(), {"deadline_s": 0.2}, errors.DeadlineExceeded, 0.2),
        (f.drip(), {"attempt_s": 0.5}, errors.StreamInterrupted, 0.5),
    ],
)
def test_peer_bug_timeouts_apply_to_streams(
    client: Client, server: FaultServer, behaviour: Behaviour, options: dict[str, float], error: type[Exception], limit_s: float
) -> None:
    """First token, silence, an attempt's time and the total deadline end a stream on time."""
    server.script("m", [behaviour])
    with at_most(limit_s), pytest.raises(errors.CallFailed) as caught, client.stream("hello", retries=0, **options) as stream:
        list(stream)
    causes = caught.value.exceptions if isinstance(caught.value, errors.AllRungsFailed) else [caught.value]
    assert [type(exc) for exc in causes] == [error]


def test_peer_bug_a_budget_worth_two_calls_does_not_let_fifty_through(server: FaultServer, tmp_path: Path) -> None:
    """Fifty threads at once on a session budget that two worst cases fit into: the ledger never has more than the limit."""
    server.script("m", [f.ok("yes")])
    with Client(endpoints={"one": endpoint(server, max_concurrency=None)}, ladder=["one/m"], home=tmp_path) as client:
        client.configure(**{"budget.session_usd": "0.0125"})
        with ThreadPoolExecutor(50) as pool:
            results = list(pool.map(lambda n: outcome(client, f"question {n}", max_tokens=512), range(50)))
        done = [r for r in results if isinstance(r, Reply)]
        refused = [r for r in results if isinstance(r, errors.BudgetExceeded)]
        assert len(done) + len(refused) == 50
        assert len(done) == server.count("m") >= 2
        assert refused
        (spent,) = [line.spent_usd for line in client.budget_lines() if line.scope.startswith("session")]
        assert spent <= Decimal("0.0125")
        check_money(client)


def test_peer_bug_an_unknown_model_is_not_priced_at_nothing(server: FaultServer, tmp_path: Path) -> None:
    """Without a price the cost is unknown, in the reply and in the sums; with a hard budget nothing is sent."""
    server.script("m", [f.ok("yes")])
    bare = endpoint(server, input_usd_per_mtok=None, output_usd_per_mtok=None)
    with Client(endpoints={"one": bare}, ladder=["one/m"], home=tmp_path) as client:
        reply = client.ask("hello")
        assert (reply.cost_usd, reply.cost_basis) == (None, "unknown")
        (row,) = client.ledger.usage("total", ALL)
        assert (row.unknown_cost_calls, row.cost_usd) == (1, 0)
        assert isinstance(outcome(client, "another", budget_usd="1"), errors.UnpricedModel)
        assert server.count("m") == 1


def test_peer_bug_the_second_call_finds_its_loop_open(client: Client, server: FaultServer) -> None:
    """Calls from plain code, from one asyncio.run and from another, in turn: none meets a loop that is closed."""
    import asyncio

    server.script("m", [f.ok("yes")])
    texts = [client.ask("a").text]
    texts += [asyncio.run(client.aask(text)).text for text in ("b", "c")]
    watch = Stopwatch()
    texts.append(client.ask("d").text)
    assert texts == ["yes"] * 4
    assert watch.s < 1
