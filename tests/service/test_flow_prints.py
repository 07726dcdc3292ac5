"""What flows print and log is in no answer, breaks no line of the log, and is not in it unless log_prompts says so."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nbllm.flow_context import WATCHER
from nbllm.service.context import REQUEST_ID
from nbllm.service.flow_prints import flows_print_into_the_log
from nbllm.service.flow_watch import Follower
from nbllm.service.logs import LineWriter, logging_to, stdout_writer

SECRET = "sk-proj-" + "Zx9Yw8Vu7" * 5


@contextmanager
def as_a_flow() -> Iterator[None]:
    """Be the code of a flow for a with block."""
    token = WATCHER.set(Follower())
    try:
        yield
    finally:
        WATCHER.reset(token)


def printed(monkeypatch: pytest.MonkeyPatch, name: str, *, say_what: bool) -> str:
    """Print as a flow and as somebody else; return what is on the stream."""
    real = io.StringIO()
    monkeypatch.setattr(sys, name, real)
    with flows_print_into_the_log(say_what=say_what):
        say = functools.partial(print, file=getattr(sys, name))
        say("before")
        with as_a_flow():
            say("private", SECRET)
            say()

        async def main() -> None:
            async def flow() -> None:
                WATCHER.set(Follower())
                say("private too")

            task = asyncio.create_task(flow())
            say("meanwhile")
            await task

        asyncio.run(main())
        say("after", flush=True)
    assert getattr(sys, name) is real
    with as_a_flow():
        say("nobody listens any more")  # as a handler does that has kept the stream
    return real.getvalue()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_flow_prints_into_the_log(name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """On the stream is what others print; the log says how much a flow printed, and not what."""
    with caplog.at_level(logging.INFO, "nbllm.service"):
        assert printed(monkeypatch, name, say_what=False) == "before\nmeanwhile\nafter\nnobody listens any more\n"
    assert "printed 7 characters" in caplog.text
    assert "private" not in caplog.text


def test_with_prompts_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What a flow printed is there too, without keys."""
    with caplog.at_level(logging.INFO, "nbllm.service"):
        printed(monkeypatch, "stdout", say_what=True)
    assert "private too" in caplog.text
    assert SECRET not in caplog.text


def test_what_a_broken_log_prints_goes_round_in_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that fails prints why; a flow's print that made it fail is no reason to print for ever."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    class Fails(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("the log is broken", file=sys.stderr)

    log = logging.getLogger("nbllm.service")
    broken = Fails()
    log.addHandler(broken)
    try:
        with flows_print_into_the_log(), as_a_flow():
            print("private", file=sys.stderr)
    finally:
        log.removeHandler(broken)


@contextmanager
def consoles(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Have something stand for stderr, with loggers that write there as a notebook's may: the root's, and one past the root."""
    console = io.StringIO()
    monkeypatch.setattr(sys, "stderr", console)
    root, own = logging.getLogger(), logging.getLogger("tests.own")
    own.propagate = False
    handlers = [(root, logging.StreamHandler()), (own, logging.StreamHandler())]
    for logger, handler in handlers:
        logger.addHandler(handler)
    yield console
    for logger, handler in handlers:
        assert handler in logger.handlers, "what was there before is there again"
        logger.removeHandler(handler)
    own.propagate = True


@pytest.mark.parametrize("say_why", [False, True])
def test_what_flows_and_libraries_log_is_json_without_texts(monkeypatch: pytest.MonkeyPatch, say_why: bool) -> None:
    """Each record is one line of JSON with its level, logger, place and request; what it says only with log_prompts, redacted."""
    stream, kept = io.BytesIO(), io.StringIO()
    writer = LineWriter(stream)
    to_a_file = logging.StreamHandler(kept)
    logging.getLogger("tests.filed").addHandler(to_a_file)
    with consoles(monkeypatch) as console, logging_to(writer, "nbllm", say_why=say_why):
        token = REQUEST_ID.set("r-1")
        for name in ("tests.none", "tests.own", "tests.filed"):
            logging.getLogger(name).warning("private %s %s", "text", SECRET)
        logging.getLogger("tests.none").error("private", exc_info=ValueError("private"))
        REQUEST_ID.reset(token)
        logging.getLogger("celery.worker").warning("of the server")
    writer.close()
    logging.getLogger("tests.filed").removeHandler(to_a_file)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["tests.none", "tests.own", "tests.filed", "tests.none", "celery.worker"]
    assert {line.get("request_id") for line in lines[:4]} == {"r-1"}
    assert ("request_id" in lines[4], lines[4]["event"]) == (False, "of the server")
    assert all("test_flow_prints.py:" in line["event"] for line in lines[:4]) != say_why
    assert ("private text" in lines[0]["event"]) == say_why
    assert ("private" in stream.getvalue().decode()) == say_why
    assert SECRET not in stream.getvalue().decode()
    assert console.getvalue() == ""
    assert "private text" in kept.getvalue(), "what somebody writes elsewhere is theirs"


def test_lines_reach_stdout_where_something_without_bytes_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a Celery worker that keeps its stdout to itself: the log is written, and not lost."""

    class NoBytes(io.TextIOBase):
        """It has no buffer."""

    real = io.TextIOWrapper(io.BytesIO())
    for name, stream in (("stdout", NoBytes()), ("stderr", NoBytes()), ("__stdout__", real)):
        monkeypatch.setattr(sys, name, stream)
    writer = stdout_writer()
    writer.write(b"a line")
    writer.close()
    assert real.buffer.getvalue() == b"a line\n"  # type: ignore[attr-defined]  # it is a BytesIO
