"""Every row of the fault table, streamed and not, with no, a healthy and a faulty fallback; the invariants after each."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nbllm import Client, Reply, errors
from nbllm.core import waits
from nbllm.live import LiveCall
from tests import fault_behaviours as f
from tests.fault_behaviours import Behaviour
from tests.fault_server import FaultServer, closed_port
from tests.road.invariants import (
    ALL,
    at_most,
    check_cache,
    check_error,
    check_money,
    check_no_secret,
    check_nothing_left,
    check_rows,
    endpoint,
)
from tests.starvation import Waited

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Row:
    """One fault: what the server does, and what the road must make of it.

    calls: requests on the faulty endpoint without and with another rung. alone: the error without a fallback. falls_back: whether
    another rung is asked. cause: the class among the causes. options: of the call.
    """

    name: str
    behaviours: tuple[Behaviour, ...]
    calls: tuple[int, int]
    alone: type[Exception] | None
    cause: type[Exception] | None = None
    falls_back: bool = True
    partial: bool = False
    options: tuple[tuple[str, object], ...] = ()


def again(name: str, behaviour: Behaviour, cause: type[Exception], *, calls: tuple[int, int] = (3, 3)) -> Row:
    """A fault that is retried, then left to the next rung."""
    return Row(name, (behaviour,), calls, errors.AllRungsFailed, cause)


def once(name: str, behaviour: Behaviour, error: type[Exception], *, falls_back: bool = True) -> Row:
    """A fault that no retry can mend."""
    return Row(name, (behaviour,), (1, 1), error, error, falls_back=falls_back)


BOTH = [
    again("reset before headers", f.reset(), errors.ConnectionFailed),
    again("500", f.error(500), errors.ServerFailed),
    again("503", f.error(503), errors.ServerFailed),
    again("malformed JSON body", f.malformed(), errors.BadAnswer),
    again("empty 200", f.empty(), errors.BadAnswer),
    again("HTML 200", f.html(), errors.BadAnswer),
    again("choices []", f.no_choices(), errors.BadAnswer),
    again("429 without Retry-After", f.rate_limited(), errors.RateLimited),
    again("429 with nonsense", f.rate_limited("soon"), errors.RateLimited),
    Row("429 that fits", (f.rate_limited("1"), f.ok()), (2, 2), None),
    Row("429 beyond the deadline", (f.rate_limited("3600"),), (1, 1), errors.AllRungsFailed, errors.RateLimited),
    Row("finish length", (f.finish("length"),), (1, 1), None),
    once("content filter 400", f.content_filter(), errors.Refused, falls_back=False),
    once("content filter finish", f.finish("content_filter"), errors.Refused, falls_back=False),
    once("400 bad parameter", f.bad_parameter(), errors.BadParameter, falls_back=False),
    once("400 context length", f.context_too_long(), errors.ContextTooLong),
    once("401", f.wrong_key(), errors.AuthenticationFailed),
    once("403", f.forbidden(), errors.PermissionDenied),
    once("404", f.not_found(), errors.ModelNotFound),
    once("redirect", f.redirect(), errors.RedirectRefused),
    once("answer over 8 MB", f.huge(), errors.AnswerTooLarge),
]
STREAMED = [
    Row(
        "nothing before the first token",
        (f.stall("headers"),),
        (3, 1),
        errors.AllRungsFailed,
        errors.FirstTokenTimeout,
        options=(("ttft_s", 0.3),),
    ),
    once("SSE line over 1 MB", f.huge_line(), errors.AnswerTooLarge),
    *(
        Row(name, (behaviour,), (3, 1), errors.AllRungsFailed, errors.StreamInterrupted, partial=True, options=options)
        for name, behaviour, options in [
            ("reset after the first token", f.reset("tokens"), ()),
            ("clean EOF without finish", f.cut(), ()),
            ("stall after the first token", f.stall("tokens"), (("idle_s", 0.3),)),
            ("broken SSE line", f.broken_line(), ()),
            ("in-band error", f.error_in_band(), ()),
        ]
    ),
]
WHOLE = [
    Row(
        "nothing at all",
        (f.stall(),),
        (3, 3),
        errors.AllRungsFailed,
        errors.AttemptTimeout,
        options=(("attempt_s", 0.3),),
    ),
    again("reset within the body", f.reset("headers"), errors.ConnectionFailed),
    again("cut within the body", f.cut("headers"), errors.ConnectionFailed),
]
CASES = [
    pytest.param(row, watched, fallback, id=f"{row.name}-{'streamed' if watched else 'whole'}-{fallback}")
    for rows, modes in ((BOTH, (False, True)), (STREAMED, (True,)), (WHOLE, (False,)))
    for row, watched, fallback in itertools.product(rows, modes, ("none", "healthy", "faulty"))
]


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    """Backoff takes no time here; that it is waited for is proved in virtual time."""
    waits.skip()
    yield
    waits.unskip()


@pytest.mark.parametrize(("row", "watched", "fallback"), CASES)
def test_fault(row: Row, watched: bool, fallback: str, tmp_path: Path) -> None:
    """Each fault is retried, handed on or raised as promised, and I1-I8 hold afterwards."""
    with FaultServer() as server:
        server.script("faulty", row.behaviours)
        server.script("second", [f.error(503) if fallback == "faulty" else f.ok("from ", "the second.")])
        ladder = ["one/faulty"] if fallback == "none" else ["one/faulty", "two/second"]
        client = Client(
            endpoints={"one": endpoint(server), "two": endpoint(server, context_tokens=16_384)},
            ladder=ladder,
            home=tmp_path,
            deadline_s=DEADLINE_S,
        )
        with client:
            assert not client.ledger.calls(ALL, limit=1)
            caught: errors.CallFailed | None = None
            with at_most(DEADLINE_S):
                live = client.start("Say one two three", watched=watched, **dict(row.options))
                for _ in live.events(0.02):
                    pass
                try:
                    reply = live.reply
                except errors.CallFailed as exc:
                    caught = exc
            expect_calls = row.calls[0 if fallback == "none" else 1]
            if row.alone is None:
                assert caught is None, caught
                assert reply.rung == "one/faulty"
            elif fallback == "healthy" and row.falls_back:
                assert caught is None, caught
                assert (reply.text, reply.rung) == ("from the second.", "two/second")
            else:
                assert caught is not None
                expected = row.alone if fallback == "none" or not row.falls_back else errors.AllRungsFailed
                assert type(caught) is expected, caught
                causes = caught.exceptions if isinstance(caught, errors.AllRungsFailed) else [caught]
                assert row.cause is not None
                assert any(type(cause) is row.cause for cause in causes), causes
                check_error(client, caught)
            assert server.count("faulty") == expect_calls
            if row.partial and caught is not None:
                assert "One two" in caught.partial.text, "a partial answer is kept (I2)"
            if row.partial and fallback == "healthy":
                assert live.restarts, "the watcher is told that what came is void (I2)"
                assert live.partial().text == "from the second."
            check_rows(client, server, {"one/faulty": "faulty", "two/second": "second"})
            check_money(client)
            check_cache(client)
        check_no_secret(tmp_path, str(caught), repr(caught), *(getattr(caught, "__notes__", ()) or ()))
        check_nothing_left(server)


def no_such_host() -> str:
    """A name that cannot resolve (RFC 6761); skips where the resolver does not say so at once."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        socket.getaddrinfo("no-such-host.invalid", 80)
        pytest.skip("the resolver here makes up addresses for names that do not exist")
    if time.monotonic() - began > 1:
        pytest.skip("the resolver here takes long to say that a name does not exist")
    return "http://no-such-host.invalid/v1"


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("fallback", ["none", "healthy", "faulty"])
@pytest.mark.parametrize("address", [closed_port, no_such_host])
def test_no_connection(address: Callable[[], str], fallback: str, watched: bool, tmp_path: Path) -> None:
    """A closed port, and a name that does not resolve: tried three times, nothing marked sent, then the next rung."""
    with FaultServer() as server:
        server.script("second", [f.error(503) if fallback == "faulty" else f.ok("from ", "the second.")])
        endpoints = {"dead": endpoint(address()), "two": endpoint(server)}
        ladder = ["dead/m"] if fallback == "none" else ["dead/m", "two/second"]
        with Client(endpoints=endpoints, ladder=ladder, home=tmp_path, deadline_s=DEADLINE_S) as client:
            assert not client.ledger.calls(ALL, limit=1)
            with at_most(DEADLINE_S):
                live = client.start("hello", watched=watched)
                for _ in live.events(0.02):
                    pass
            if fallback == "healthy":
                assert (live.reply.text, live.reply.rung) == ("from the second.", "two/second")
            else:
                with pytest.raises(errors.AllRungsFailed) as caught:
                    assert live.reply
                kinds = [type(exc) for exc in caught.value.exceptions]
                assert kinds == [errors.ConnectionFailed] * 3 + [errors.ServerFailed] * (3 if fallback == "faulty" else 0)
                assert "dead/m (3 tries, nothing sent)" in str(caught.value)
                check_error(client, caught.value)
                check_no_secret(tmp_path, str(caught.value), repr(caught.value))
            (call,) = client.ledger.calls(ALL, limit=5)
            attempts = [a for a in client.ledger.attempts(call.call_id) if a.rung == "dead/m"]
            assert [(a.sent, a.cost_usd) for a in attempts] == [(False, 0)] * 3
            check_rows(client, server, {"two/second": "second"})
            check_money(client)
            check_cache(client)
        check_nothing_left(server)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("fallback", ["none", "healthy", "faulty"])
def test_slow_drip_is_cut_in_time(fallback: str, watched: bool, tmp_path: Path) -> None:
    """A server that drips for ever is cut at the total deadline; what came is kept, the socket closed, the cost estimated.

    A stream that flows is nobody's cue to ask another rung; a whole answer that nobody sees gets its share of the time only.
    Where other programs took a tenth of the time, less may have come than a deadline has room for: then again with a longer one.
    """
    for deadline_s in (0.6, 1.2, 2.4, 4.8):
        if drips(fallback, watched, tmp_path / str(deadline_s), deadline_s).lost_s < deadline_s / 10:
            return


def drips(fallback: str, watched: bool, home: Path, deadline_s: float) -> Waited:
    """One slow drip. What depends on how much came in time is asserted if the process had its time, or the deadline is the last."""
    with FaultServer() as server:
        server.script("m", [f.drip()])
        server.script("second", [f.error(503) if fallback == "faulty" else f.ok("from ", "the second.")])
        endpoints = {"one": endpoint(server), "two": endpoint(server)}
        ladder = ["one/m"] if fallback == "none" else ["one/m", "two/second"]
        with Client(endpoints=endpoints, ladder=ladder, home=home) as client:
            assert not client.ledger.calls(ALL, limit=1)
            with at_most(deadline_s) as waited:
                live = client.start("hello", deadline_s=deadline_s, watched=watched)
                for _ in live.events(0.02):
                    pass
                caught: errors.CallFailed | None = None
                try:
                    assert isinstance(live.reply, Reply)
                except errors.CallFailed as exc:
                    caught = exc
            if caught is not None:
                check_error(client, caught)
            if waited.lost_s < deadline_s / 10 or deadline_s > 4:
                check_drip(client, server, live, caught, watched=watched, fallback=fallback)
            check_rows(client, server, {"one/m": "m", "two/second": "second"})
            check_money(client)
            check_cache(client)
        check_nothing_left(server)
    return waited


def check_drip(
    client: Client, server: FaultServer, live: LiveCall, caught: errors.CallFailed | None, *, watched: bool, fallback: str
) -> None:
    """How it ended, what was kept, and what the rungs were asked."""
    moves_to = "none" if watched else fallback
    if moves_to == "healthy":
        assert caught is None, caught
        assert (live.reply.text, live.reply.rung) == ("from the second.", "two/second")
    else:
        assert type(caught) is (errors.AllRungsFailed if moves_to == "faulty" else errors.DeadlineExceeded)
        if watched:
            assert caught.partial is not None
            assert caught.partial.text.startswith("drip drip")
    (call,) = client.ledger.calls(ALL, limit=5)
    dripped = [a for a in client.ledger.attempts(call.call_id) if a.rung == "one/m"]
    assert all(a.cost_basis == "estimated" and a.cost_usd is not None and a.cost_usd > 0 for a in dripped), dripped
    assert 1 <= len(dripped) <= (1 if moves_to == "none" else 3)
    # How many backoffs fit into what is left of the time is chance.
    assert server.count("second") in {"none": range(1), "healthy": range(1, 2), "faulty": range(1, 4)}[moves_to]


def test_interrupted_stream_that_raises(tmp_path: Path) -> None:
    """stream() raises StreamInterrupted with the partial text, bills it as estimated, and tries nothing else."""
    with FaultServer() as server:
        server.script("m", [f.cut()])
        with Client(endpoints={"one": endpoint(server)}, ladder=["one/m", "one/second"], home=tmp_path) as client:
            pieces: list[str] = []
            with pytest.raises(errors.StreamInterrupted) as caught, client.stream("hello") as stream:
                pieces.extend(stream)
            assert "".join(pieces) == "One two "
            assert caught.value.partial is not None
            assert caught.value.partial.text == "One two "
            assert server.count() == 1
            (attempt,) = client.ledger.attempts(caught.value.call_id)
            assert (attempt.cost_basis, attempt.status.value) == ("estimated", "failed")
            check_cache(client)
