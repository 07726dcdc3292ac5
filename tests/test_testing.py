"""The public fakes: what users' tests stand on must itself hold."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.core import waits
from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Chat, Delta, Embed, Ending, Rung, ToolCallFragment, Usage
from nbllm.core.ports import RateLimits, Wire
from nbllm.errors import ConnectionFailed, RateLimited, ServerFailed, StreamInterrupted
from nbllm.settings import Endpoint
from nbllm.testing import Deadlock, FakeClock, FakeProvider, NetworkBlocked, Script, UnexpectedRequest, offline, run_virtual

RUNG = Rung(
    id="lab/m", model="m", endpoint_name="lab", endpoint=Endpoint(), provider="openai_compatible", identity="lab", price=None
)


class Seen:
    """A Progress that remembers, with the virtual time of each piece."""

    def __init__(self):
        self.was_sent = False
        self.told = None
        self.pieces = []
        self.gathered = Accumulator()

    def sent(self):
        self.was_sent = True

    def limits(self, limits):
        self.told = limits

    def delta(self, delta):
        self.pieces.append((asyncio.get_running_loop().time(), delta))
        self.gathered.add(delta)

    def usage(self, usage):
        raise AssertionError("the fake does not report counts before the end")


def wire(*, streamed=True, content=None) -> Wire:
    """Return a request as an attempt would send it."""
    return Wire(rung=RUNG, content=content or Chat(messages=({"role": "user", "content": "Say hi"},)), streamed=streamed)


def play(provider: FakeProvider, request: Wire | None = None) -> tuple[Seen, Ending]:
    """Send one request in virtual time."""
    seen = Seen()
    return seen, run_virtual(provider.send(request or wire(), seen))


# ---------------------------------------------------------------------------------------------------- virtual time


@given(st.lists(st.integers(0, 10**8).map(lambda ms: ms / 1000), max_size=30))
def test_sleepers_wake_in_order_and_at_their_time(delays):
    """Any sleeps, started together, end in order of length, each at its own virtual time, without real time passing."""

    async def main():
        loop, woke = asyncio.get_running_loop(), []

        async def sleeper(delay):
            start = loop.time()
            await asyncio.sleep(delay)
            woke.append((delay, loop.time() - start))

        await asyncio.gather(*map(sleeper, delays))
        return woke

    started = time.monotonic()
    woke = run_virtual(main())
    assert [delay for delay, _ in woke] == sorted(delays)
    assert all(took == pytest.approx(delay, abs=1e-6) for delay, took in woke)
    assert time.monotonic() - started < 5


def test_timeouts_and_timers_run_on_the_clock_that_is_given():
    """asyncio.timeout and call_later go by the FakeClock that the test holds, and its Unix time goes along."""
    clock = FakeClock(now_s=50.0, unix_s=1_000.0)

    async def main():
        rang = []
        asyncio.get_running_loop().call_later(3.0, lambda: rang.append(clock()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await asyncio.get_running_loop().create_future()
        return rang

    assert run_virtual(main(), clock=clock) == [53.0]
    assert (clock.now_s, clock.unix_s, clock.unix()) == (60.0, 1_010.0, 1_010.0)


def test_a_clock_never_goes_back():
    """A monotonic clock cannot be turned back, nor to NaN."""
    clock = FakeClock()
    for seconds in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="cannot be advanced"):
            clock.advance(seconds)


def test_work_in_threads_is_waited_for_really():
    """A thread's 50 ms pass while virtual time stands still: a shorter virtual timeout around it does not fire."""

    async def main():
        start = asyncio.get_running_loop().time()
        async with asyncio.timeout(0.01):
            await asyncio.to_thread(time.sleep, 0.05)
        return asyncio.get_running_loop().time() - start

    assert run_virtual(main()) == 0


def test_another_thread_s_future_is_waited_for_really():
    """A future that another thread completes, such as a ledger row's, holds virtual time still as executor work does."""
    from concurrent.futures import Future

    async def main():
        future = Future()
        threading.Timer(0.05, future.set_result, [7]).start()
        async with asyncio.timeout(0.01):
            return await asyncio.wrap_future(future)

    assert run_virtual(main()) == 7


def test_a_thread_may_wake_the_loop_when_nothing_else_could():
    """A thread that calls into the loop on its own account is waited for before anything is called a deadlock."""

    async def main():
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        threading.Timer(0.05, loop.call_soon_threadsafe, [event.set]).start()
        await event.wait()
        return "woken"

    assert run_virtual(main()) == "woken"


def test_a_stuck_thread_runs_into_the_deadline():
    """Patience with threads ends: after patience_s real seconds virtual time goes on, so that a deadline can cut the wait."""
    release = threading.Event()

    async def main():
        try:
            async with asyncio.timeout(5.0):
                await asyncio.to_thread(release.wait)
        except TimeoutError:
            release.set()
            return "cut"

    assert run_virtual(main(), patience_s=0.05) == "cut"


def test_a_stuck_thread_is_waited_for_once():
    """A thread that never comes back costs its patience once, not before every timer after it."""
    release = threading.Event()

    async def main():
        stuck = asyncio.ensure_future(asyncio.to_thread(release.wait))
        for _ in range(100):
            await asyncio.sleep(1)
        release.set()
        await stuck

    started = time.monotonic()
    run_virtual(main(), patience_s=0.1)
    assert time.monotonic() - started < 5


def test_a_deadlock_is_named_instead_of_hanging():
    """When nothing is left that could wake a task, the error says which tasks wait and where."""

    async def waits_for_ever():
        await asyncio.Event().wait()

    async def main():
        await asyncio.create_task(waits_for_ever(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one at .*test_testing\.py"):
        run_virtual(main(), patience_s=0.02)


def test_nothing_is_left_over():
    """After a run, a deadlock included, no loop stays current, no thread of its pool lives and no socket warns."""
    before = threading.active_count()

    async def main():
        await asyncio.to_thread(int)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run_virtual(main(), patience_s=0.02)
    gc.collect()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


# ---------------------------------------------------------------------------------------------------- the provider


def test_by_default_it_answers_ok():
    """Without a script a request gets a whole plausible answer, and is remembered."""
    provider = FakeProvider()
    seen, ending = play(provider)
    assert (seen.gathered.text, ending.finish_reason, ending.model) == ("ok", "stop", "m")
    assert ending.usage.input_tokens
    assert ending.usage.output_tokens == 1
    assert provider.calls == 1
    assert provider.requests[0].content.messages[0]["content"] == "Say hi"
    assert seen.was_sent


def test_steps_are_played_in_order():
    """Texts, deltas, endings, errors and functions of the request are played one a request, in the order they were given."""
    bare = Ending(finish_reason="length", usage=Usage(5, 7))
    fragment = Delta(tool_call=ToolCallFragment(0, "c", "f", "{}"))
    provider = FakeProvider("one").enqueue([Delta(reasoning="hm"), fragment], bare, ServerFailed, lambda asked: asked.rung.model)
    assert play(provider)[0].gathered.text == "one"
    seen, ending = play(provider)
    assert (seen.gathered.reasoning, ending.finish_reason, ending.usage.reasoning_tokens) == ("hm", "tool_calls", 1)
    seen, ending = play(provider)
    assert (seen.pieces, ending) == ([], bare)
    with pytest.raises(ServerFailed) as caught:
        play(provider)
    assert caught.value.rung == "lab/m"
    assert provider.left == 1
    assert play(provider)[0].gathered.text == "m"
    provider.assert_done()
    provider.enqueue("unused")
    with pytest.raises(AssertionError, match="1 enqueued answers were not used"):
        provider.assert_done()


def test_an_error_is_raised_as_it_is_given():
    """An instance comes out as itself; a connection that was refused was never sent."""
    error, unsent = RateLimited("slow down", retry_after_s=3.0), ConnectionFailed("refused", whole_endpoint=True)
    provider, seen = FakeProvider(error, unsent), Seen()
    with pytest.raises(RateLimited) as caught:
        run_virtual(provider.send(wire(), seen))
    assert caught.value is error
    assert seen.was_sent
    seen = Seen()
    with pytest.raises(ConnectionFailed):
        run_virtual(provider.send(wire(), seen))
    assert not seen.was_sent


def test_a_script_keeps_its_times():
    """First token, gaps and end come at the scripted seconds, and headers are told before the first piece."""
    limits = RateLimits(requests_left=3)
    provider = FakeProvider(Script(pieces=["a", "b", "c"], first_after_s=2.0, gap_s=0.5, end_after_s=1.0, limits=limits))
    clock, seen = FakeClock(now_s=0.0), Seen()
    run_virtual(provider.send(wire(), seen), clock=clock)
    assert [(at, delta.text) for at, delta in seen.pieces] == [(2.0, "a"), (2.5, "b"), (3.0, "c")]
    assert clock.now_s == 4.0
    assert seen.told == limits


def test_a_cut_stream_has_told_its_pieces_and_a_cut_whole_answer_none():
    """Asked for a stream, the pieces before the error came; asked for a whole answer, nothing did, as with a real provider."""
    script = Script(pieces=["half ", "of"], then=StreamInterrupted("cut"))
    for streamed, came in ((True, "half of"), (False, "")):
        seen = Seen()
        with pytest.raises(StreamInterrupted):
            run_virtual(FakeProvider(script).send(wire(streamed=streamed), seen))
        assert seen.gathered.text == came


def test_a_whole_answer_is_one_piece():
    """Without streaming the text comes as one Delta, and further tool calls as one each."""
    fragments = [Delta(tool_call=ToolCallFragment(i, f"c{i}", "f", "{}")) for i in range(2)]
    seen, _ = play(FakeProvider([Delta(text="a"), Delta(text="b"), *fragments]), wire(streamed=False))
    assert [delta.text for _, delta in seen.pieces] == ["ab", ""]
    assert len(seen.gathered.partial().tool_calls) == 2


def test_a_hanging_answer_can_be_cancelled_and_is_counted():
    """A script that hangs never ends; giving it up is counted, and nothing stays in flight."""
    provider = FakeProvider(default=Script(pieces=["a"], hang=True))

    async def main():
        sends = [asyncio.create_task(provider.send(wire(), Seen())) for _ in range(3)]
        await asyncio.sleep(1)
        assert provider.in_flight == 3
        for send in sends:
            send.cancel()
        await asyncio.gather(*sends, return_exceptions=True)

    run_virtual(main())
    assert (provider.cancelled, provider.in_flight, provider.peak_in_flight) == (3, 0, 3)


def test_a_strict_provider_refuses_what_was_not_expected():
    """strict=True turns a request too many into an AssertionError that names it."""
    provider = FakeProvider("one", strict=True)
    play(provider)
    with pytest.raises(UnexpectedRequest, match="Request number 2, to 'lab/m'"):
        play(provider)
    with pytest.raises(AssertionError):
        provider.assert_done()


def test_embeddings_are_unit_vectors_that_tell_texts_apart():
    """One vector a text, of length 1, equal for equal texts and not for others, without any script."""
    _, ending = play(FakeProvider(dimensions=16), wire(content=Embed(texts=("a", "b", "a"))))
    first, second, third = ending.vectors
    assert first == third != second
    assert len(first) == 16
    assert sum(x * x for x in first) == pytest.approx(1.0)
    assert ending.usage.output_tokens is None


def test_closing_is_remembered():
    """There is nothing to close, and that it was asked to is seen."""
    provider = FakeProvider()
    run_virtual(provider.aclose())
    assert provider.closed


# ---------------------------------------------------------------------------------------------------- offline


def test_offline_refuses_foreign_hosts_and_leaves_loopback_alone():
    """Inside offline() a foreign address or name is refused before anything leaves; 127.0.0.1 works; after it all is as before."""
    plain = (vars(socket.socket).get("connect"), socket.getaddrinfo)
    with socket.create_server(("127.0.0.1", 0)) as server, offline():
        socket.create_connection(server.getsockname()).close()
        with pytest.raises(NetworkBlocked, match=r"192\.0\.2\.1"):
            socket.create_connection(("192.0.2.1", 80))
        with pytest.raises(NetworkBlocked, match=r"example\.org"):
            socket.getaddrinfo("example.org", 443)
        with socket.socket() as raw, pytest.raises(NetworkBlocked):
            raw.connect_ex(("8.8.8.8", 53))
    assert (vars(socket.socket).get("connect"), socket.getaddrinfo) == plain


def test_offline_can_refuse_loopback_too():
    """loopback=False refuses every connection, also inside an offline() that would let it through."""
    with socket.create_server(("127.0.0.1", 0)) as server, offline(), offline(loopback=False):
        with pytest.raises(NetworkBlocked):
            socket.create_connection(server.getsockname())
        with pytest.raises(NetworkBlocked):
            socket.create_connection(("localhost", server.getsockname()[1]))


def test_offline_holds_on_other_threads_and_in_asyncio():
    """Requests run on a thread of their own: the guard holds there, and an event loop's connection meets it too."""

    async def connect():
        await asyncio.open_connection("192.0.2.1", 80)

    caught = []

    def run():
        try:
            asyncio.run(connect())
        except NetworkBlocked as exc:
            caught.append(exc)

    with offline():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "Nothing was sent" in str(caught[0])


def test_offline_decorates_functions_and_coroutines():
    """As a decorator it guards each run of a function, async ones for as long as they are awaited."""

    @offline()
    def plain():
        return waits.skipped()

    @offline()
    async def awaited():
        await asyncio.sleep(0)
        return waits.skipped()

    assert plain()
    assert asyncio.run(awaited())
    assert plain.__name__ == "plain"
    assert not waits.skipped()


def test_offline_skips_voluntary_waits_only_inside():
    """Backoff and the pace of simulated models take no time inside, and nest; outside they take what they take."""
    assert waits.paced_s(2.5) == 2.5
    with offline():
        with offline():
            assert waits.paced_s(2.5) == 0
        assert waits.paced_s(2.5) == 0
    assert waits.paced_s(2.5) == 2.5
    with pytest.raises(RuntimeError, match="without skip"):
        waits.unskip()


def test_offline_is_undone_when_the_test_fails():
    """An exception inside leaves no guard behind."""
    with pytest.raises(KeyError), offline():
        raise KeyError("x")
    assert not waits.skipped()
    assert "connect" not in vars(socket.socket)
