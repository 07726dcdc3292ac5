"""LiteLLM against the fault server, row by row of the fault table: what docs/providers.md says of it is true.

`openai/...` with api_base on loopback goes through LiteLLM and the OpenAI SDK as a hosted provider would.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from nbllm import errors
from nbllm.core.messages import Chat, Content, Ending, Rung
from nbllm.core.ports import Wire
from nbllm.providers.litellm import LiteLLM, load
from nbllm.settings import Endpoint
from tests import fault_behaviours as faults
from tests.fault_server import FaultServer
from tests.providers.helpers import HELLO, Heard
from tests.starvation import Stopwatch, within

pytestmark = [
    # LiteLLM and the SDK under it leave their own deprecations and sockets for the garbage collector; ours are errors elsewhere.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("swept"),
]
T = TypeVar("T")
KEY = "sk-test-0123456789abcdef"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def wire(
    base_url: str, content: Content = HELLO, *, streamed: bool = False, model: str = "m", provider: str = "openai", **fields: Any
) -> Wire:
    fields.setdefault("deadline_s", 60.0)
    rung = Rung(
        id=f"{provider}/{model}",
        model=model,
        endpoint_name=provider,
        endpoint=Endpoint(base_url=base_url, api_key=KEY),
        provider="litellm",
        identity="test",
        price=None,
    )
    return Wire(rung=rung, content=content, streamed=streamed, **fields)


async def exchange(
    server: FaultServer, behaviour: faults.Behaviour, *, streamed: bool, content: Content = HELLO, **fields: Any
) -> tuple[Ending | Exception, Heard]:
    """Send one request; return the ending or the error, and what was heard. The provider is closed."""
    server.script("m", [behaviour])
    provider, heard = LiteLLM({}), Heard()
    try:
        ending: Ending | Exception = await provider.send(wire(server.base_url, content, streamed=streamed, **fields), heard)
    except Exception as exc:
        ending = exc
    finally:
        await provider.aclose()
    return ending, heard


ROWS: list[tuple[str, faults.Behaviour, type[Exception], type[Exception]]] = [
    # name, behaviour, error of a whole answer, error of a stream
    ("500", faults.error(500), errors.ServerFailed, errors.ServerFailed),
    ("503", faults.error(503), errors.ServerFailed, errors.ServerFailed),
    ("429", faults.rate_limited(), errors.RateLimited, errors.RateLimited),
    ("401", faults.wrong_key(), errors.AuthenticationFailed, errors.AuthenticationFailed),
    ("403", faults.forbidden(), errors.PermissionDenied, errors.PermissionDenied),
    ("404", faults.not_found(), errors.ModelNotFound, errors.ModelNotFound),
    ("parameter", faults.bad_parameter(), errors.BadParameter, errors.BadParameter),
    ("context", faults.context_too_long(), errors.ContextTooLong, errors.ContextTooLong),
    ("filter 400", faults.content_filter(), errors.Refused, errors.Refused),
    ("filter finish", faults.finish("content_filter"), errors.Refused, errors.Refused),
    ("malformed", faults.malformed(), errors.BadAnswer, errors.BadAnswer),
    ("empty", faults.empty(), errors.BadAnswer, errors.BadAnswer),
    ("html", faults.html(), errors.ServerFailed, errors.BadAnswer),
    ("no choices", faults.no_choices(), errors.BadAnswer, errors.BadAnswer),
    ("reset", faults.reset(), errors.ConnectionFailed, errors.ConnectionFailed),
    ("reset in mid-answer", faults.reset("tokens"), errors.ConnectionFailed, errors.StreamInterrupted),
    ("end without finish", faults.cut(), errors.ConnectionFailed, errors.StreamInterrupted),
    ("broken line", faults.broken_line(), errors.BadAnswer, errors.StreamInterrupted),
    ("error in band", faults.error_in_band(), errors.ServerFailed, errors.StreamInterrupted),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_faults_are_typed_and_sent_once(
    row: tuple[str, faults.Behaviour, type[Exception], type[Exception]], streamed: bool
) -> None:
    """The error is of the kind that the road knows what to do with; one request was made; what came before is kept."""

    async def main() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, row[1], streamed=streamed)
            assert type(ending) is (row[3] if streamed else row[2]), repr(ending)
            assert server.count() == 1
            assert heard.sent_count == 1
            assert KEY not in str(ending)
            assert isinstance(ending, errors.AttemptFailed)
            assert ending.rung == "openai/m"
            if type(ending) is errors.StreamInterrupted:
                assert heard.text == "One two "

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_good_answer(streamed: bool) -> None:
    """Text, finish, usage and model arrive; a stream comes in pieces."""

    async def main() -> None:
        async with FaultServer() as server:
            ending, heard = await exchange(server, faults.ok(), streamed=streamed)
            assert isinstance(ending, Ending), repr(ending)
            assert heard.text == "One two three four five."
            assert ending.finish_reason == "stop"
            assert ending.usage.input_tokens
            assert ending.usage.output_tokens
            assert len(heard.deltas) > 1 if streamed else len(heard.deltas) == 1
            sent = server.requests[0].body
            assert sent["messages"] == [{"role": "user", "content": "Say hi"}]
            assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"

    run(main())


def test_length_is_returned() -> None:
    """A cut answer, finish length, is still an answer."""

    async def main() -> None:
        async with FaultServer() as server:
            for streamed in (False, True):
                ending, heard = await exchange(server, faults.finish("length"), streamed=streamed)
                assert isinstance(ending, Ending)
                assert ending.finish_reason == "length"
                assert heard.text

    run(main())


def test_a_drip_is_cut_at_the_deadline() -> None:
    """A stream that never ends ends at the deadline; what came was told."""

    async def main() -> None:
        async with FaultServer() as server:
            await load()
            ending, heard = await exchange(server, faults.drip(), streamed=True, deadline_s=2.0)
            assert isinstance(ending, errors.AttemptTimeout)
            assert heard.text
            assert server.count() == 1

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_answer_that_is_too_large(streamed: bool) -> None:
    """Typed; a stream is cut as soon as it is too much, a whole answer is refused once LiteLLM has read it."""

    async def main() -> None:
        async with FaultServer() as server:
            ending, _ = await exchange(server, faults.huge(2_000_000), streamed=streamed, max_answer_bytes=1_000_000)
            assert type(ending) is errors.AnswerTooLarge, repr(ending)
            assert server.count() == 1

    run(main())


def test_a_long_line_is_bounded_by_the_answer_only() -> None:
    """A documented gap: LiteLLM has no limit on a line; more than an answer may hold is refused all the same."""

    async def main() -> None:
        async with FaultServer() as server:
            ending, _ = await exchange(server, faults.huge_line(), streamed=True)
            assert isinstance(ending, Ending), repr(ending)
            ending, _ = await exchange(server, faults.huge_line(), streamed=True, max_answer_bytes=1_000_000)
            assert type(ending) is errors.AnswerTooLarge

    run(main())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2.0), ("3600", 3600.0), (None, None), ("soon", None), ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0)],
)
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    """What the provider asks for reaches the retry stage; LiteLLM and the SDK neither wait nor retry by themselves."""

    async def main() -> None:
        async with FaultServer() as server:
            with within(1.5):
                ending, _ = await exchange(server, faults.rate_limited(header), streamed=False)
            assert isinstance(ending, errors.RateLimited)
            assert ending.retry_after_s == seconds
            assert server.count() == 1

    run(main())


def test_a_parameter_is_named() -> None:
    """The 400 of a provider and LiteLLM's own refusal both name the parameter."""

    async def main() -> None:
        async with FaultServer() as server:
            ending, _ = await exchange(server, faults.bad_parameter("temperature"), streamed=False)
            assert isinstance(ending, errors.BadParameter)
            assert ending.parameter == "temperature"
            provider = LiteLLM({})
            content = Chat(messages=HELLO.messages, logprobs=True)
            with pytest.raises(errors.BadParameter) as caught:
                await provider.send(wire("http://127.0.0.1:9", content, provider="anthropic"), Heard())
            await provider.aclose()
            assert caught.value.parameter == "logprobs"

    run(main())


def test_a_refused_schema_goes_into_the_prompt_the_next_time() -> None:
    """response_format json_schema is refused once, typed; the same request then has the schema in its system prompt."""

    async def main() -> None:
        async with FaultServer() as server:
            server.script("m", [faults.bad_parameter("response_format"), faults.ok("{}")])
            provider = LiteLLM({})
            asked = wire(server.base_url, Chat(messages=HELLO.messages, json_schema={"type": "object"}))
            with pytest.raises(errors.SchemaModeRefused):
                await provider.send(asked, Heard())
            await provider.send(asked, Heard())
            await provider.aclose()
            assert ["response_format" in request.body for request in server.requests] == [True, False]
            assert server.requests[1].body["messages"][0]["content"].endswith('{"type":"object"}')

    run(main())


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_refused_connection_is_told_from_a_500(provider: str) -> None:
    """LiteLLM says InternalServerError 500; the cause says that nothing listens."""

    async def main() -> None:
        litellm = LiteLLM({})
        with pytest.raises(errors.ConnectionFailed) as caught:
            await litellm.send(wire("http://127.0.0.1:9", provider=provider), Heard())
        await litellm.aclose()
        assert caught.value.whole_endpoint
        assert caught.value.status is None

    run(main())


def test_a_stall_ends_at_the_deadline() -> None:
    """Silence before and after the first token is cut at the deadline, and the connection with it."""

    async def main() -> None:
        async with FaultServer() as server:
            await load()
            for when, streamed, limit_s in [("request", False, 0.4), ("request", True, 0.4), ("tokens", True, 1.5)]:
                with within(limit_s + 0.6):
                    ending, heard = await exchange(server, faults.stall(when), streamed=streamed, deadline_s=limit_s)  # type: ignore[arg-type]  # a literal
                assert isinstance(ending, errors.AttemptTimeout)
                assert heard.text == ("One two " if when == "tokens" else "")

    run(main())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_cancelling_closes_the_upstream(streamed: bool) -> None:
    """The server sees the connection close within a second of the caller's cancel."""

    async def main() -> None:
        async with FaultServer() as server:
            await load()
            server.script("m", [faults.stall("tokens") if streamed else faults.stall()])
            provider, heard = LiteLLM({}), Heard()
            task = asyncio.create_task(provider.send(wire(server.base_url, streamed=streamed), heard))
            if streamed:
                await asyncio.wait_for(heard.first.wait(), 30)
            else:
                while not server.count():
                    await asyncio.sleep(0.01)
            since = Stopwatch()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await server.closed_after_s(since) < 1
            await provider.aclose()

    run(main())


def test_embeddings() -> None:
    """Vectors come in the order of the texts."""
    from nbllm.core.messages import Embed

    async def main() -> None:
        async with FaultServer() as server:
            ending, _ = await exchange(server, faults.ok(), streamed=False, content=Embed(texts=("a", "b", "c")))
            assert isinstance(ending, Ending), repr(ending)
            assert ending.vectors is not None
            assert len(ending.vectors) == 3

    run(main())


def test_nothing_is_left_over() -> None:
    """After aclose no task is left on the loop and no socket at the server."""

    async def main() -> None:
        async with FaultServer() as server:
            await exchange(server, faults.ok(), streamed=True)
            await asyncio.sleep(0.05)
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert [task for task in others if "litellm" in repr(task).lower()] == []
            assert server.open_connections == 0

    run(main())


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, None])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_key_that_the_provider_repeats_is_shown_nowhere(status: int | None, streamed: bool) -> None:
    """Neither in the error nor in what it came from: LiteLLM's own errors repeat the server's words, and tracebacks print them."""
    told = f"Incorrect API key provided: {KEY}. You sent 'Bearer {KEY}'."
    line = f'data: {{"error": {{"message": "{told}", "code": "{KEY}"}}}}\n\n'.encode()
    behaviour = (
        faults.error_in_band().with_(broken_line=line) if status is None else faults.error(status, told, code=KEY, param=KEY)
    )

    async def scenario() -> Exception:
        async with FaultServer() as server:
            ending, _ = await exchange(server, behaviour, streamed=streamed)
            assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
            assert isinstance(ending, errors.AttemptFailed)
            return ending

    error = run(scenario())
    shown = ["".join(traceback.format_exception(error)), repr(vars(error))]
    cause: BaseException | None = error
    while cause is not None:
        shown.append(f"{cause} {cause!r} {cause.args!r}")
        cause = cause.__cause__ or cause.__context__
    assert "sk-test" not in "".join(shown).replace("sk-test-*", "")
    assert not [text for text in shown if KEY[8:] in text]
