"""FakeProvider: it plays what a user's test gives it, at the scripted times, and remembers what it was asked."""

from __future__ import annotations

import asyncio

import pytest

from nbllm.core.accumulator import Accumulator
from nbllm.core.messages import Chat, Delta, Embed, Ending, Rung, ToolCallFragment, Usage
from nbllm.core.ports import RateLimits, Wire
from nbllm.errors import ConnectionFailed, RateLimited, ServerFailed, StreamInterrupted
from nbllm.settings import Endpoint
from nbllm.testing import FakeClock, FakeProvider, Script, UnexpectedRequest, run_virtual

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
