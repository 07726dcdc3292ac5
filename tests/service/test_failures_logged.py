"""What the log says of failures: kind, place and numbers; what callers sent and models wrote only where log_prompts says so."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import nbllm
from nbllm import errors, flow
from nbllm.service.failures import described, log_failure
from nbllm.service.logs import LineWriter, logging_to
from nbllm.service.problems import problem_of
from nbllm.testing import Script
from tests.service.flow_apps import Served, serving

SENT = "SENT-BY-THE-CALLER"
WROTE = "WRITTEN-BY-THE-MODEL"
KINDS = ("ValidationFailed: an answer of 20 characters", "TemplateError in", "InvalidRequest in", "wrong_option (",
         "ValueError in", "BadParameter in", "ServerFailed of sim/small")  # fmt: skip


def _never(text: str) -> bool:
    raise ValueError(f"not {text}")


@flow
def checked(text: str) -> str:
    return nbllm.ask(f"Say {text}", check=_never, repairs=0).text


@flow
def undefined(text: str) -> str:
    return nbllm.ask(nbllm.render("{{ " + text.replace("-", "_") + " }}")).text


@flow
def wrong_option(text: str) -> str:
    return nbllm.ask(text, response_format={text: object()}).text


@flow
def asks(text: str) -> str:
    return nbllm.ask(text, retries=0).text


@flow
def no_number(text: str) -> int:
    return int(text)


FLOWS = (checked, undefined, wrong_option, asks, no_number)


def answered(it: Served, name: str, how: str) -> tuple[int, str]:
    """Have a flow run in one of the ways there are; return the status of its problem, and its kind."""
    if how == "whole":
        response = it.http.post(f"/flows/{name}", json={"text": SENT})
        return response.status_code, response.json()["type"].rpartition(":")[2]
    if how == "kept":
        response = it.http.post(f"/flows/{name}", json={"text": SENT}, headers={"Idempotency-Key": f"key-of-{name}"})
        return response.status_code, response.json()["type"].rpartition(":")[2]
    if how == "streamed":
        events = it.http.post(f"/flows/{name}/stream", json={"text": SENT}).text
        data = json.loads(events.rpartition("data: ")[2].strip())
        return data["status"], data["type"].rpartition(":")[2]
    where = it.http.post(f"/flows/{name}/jobs", json={"text": SENT}).headers["location"]
    until_s = time.monotonic() + 30
    while (job := it.http.get(where).json())["status"] in {"queued", "running"} and time.monotonic() < until_s:
        time.sleep(0.02)
    return job["error"]["status"], job["error"]["type"].rpartition(":")[2]


@contextmanager
def log_of(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """The lines that a service in the block writes to stdout, there when the block has ended."""
    kept: list[str] = []
    yield kept
    kept += capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("how", ["whole", "kept", "streamed", "job"])
def test_no_failure_puts_a_text_into_the_log(tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A check, a template, an option, a provider's 400 or 500, a bug of the flow: logged by kind, once, however it was asked."""
    refusals = [
        errors.BadParameter(f"cannot read {SENT}", rung="sim/small"),
        errors.ServerFailed(f"no {SENT}", rung="sim/small", status=500),
    ]

    with log_of(capsys) as lines, serving(tmp_path, flows=FLOWS) as it:
        it.fake.enqueue(WROTE)
        assert answered(it, "checked", how) == (502, "invalid-answer")
        for name in ("undefined", "wrong_option", "no_number"):
            assert answered(it, name, how) == (500, "flow-failed"), name
        it.fake.enqueue(*(Script(then=error) for error in refusals))
        again = "streamed" if how == "streamed" else "whole" if how == "kept" else how
        assert answered(it, "asks", again) == (500, "flow-failed")
        assert answered(it, "asks", again) == (502, "upstream-failed")

    text = "\n".join(lines)
    assert SENT not in text
    assert SENT.replace("-", "_") not in text
    assert WROTE not in text
    for kind in KINDS:
        assert text.count(kind) == 1, kind
    ids = [line["request_id"] for line in map(json.loads, lines) if line["event"] == "request"]
    failed = [line["event"] for line in map(json.loads, lines) if line["level"] == "error"]
    assert len(failed) == 6
    if how != "job":
        assert all(any(f"Request {one}" in line for one in ids) for line in failed)


def test_the_log_says_why_when_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With log_prompts the line has what the check said, secrets masked."""
    with log_of(capsys) as lines, serving(tmp_path, flows=FLOWS, service="log_prompts = true") as it:
        it.fake.enqueue(WROTE)
        answered(it, "checked", "whole")
    assert any(WROTE in line for line in lines)


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
def test_a_text_that_no_model_can_be_sent_is_the_callers(tmp_path: Path, text: str) -> None:
    """An empty text or one with NUL, which the caller sent and the flow passes on, stays a 400 that says what is wrong."""
    with serving(tmp_path, flows=FLOWS) as it:
        response = it.http.post("/flows/asks", json={"text": text})
    assert (response.status_code, response.json()["type"]) == (400, "urn:nbllm:problem:invalid-request")
    assert "empty" in response.json()["detail"] or "NUL" in response.json()["detail"]


def test_causes_are_told_by_kind() -> None:
    """Of several rungs each has its kind and status; what the service itself says of addresses and times stays."""
    several = errors.AllRungsFailed(
        f"all: {SENT}",
        [errors.ServerFailed(f"500: {SENT}", rung="lab/a", status=500), errors.ConnectionFailed("lab/b: refused", rung="lab/b")],
    )
    assert described(several) == "AllRungsFailed (ServerFailed of lab/a, status 500; ConnectionFailed: lab/b: refused)"
    assert SENT in described(several, say_why=True)


def test_a_bug_is_logged_by_its_way(caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody expected is its kinds and the functions that it came through, causes included, without their texts."""

    def inner() -> None:
        try:
            {}[SENT]
        except KeyError as error:
            raise ZeroDivisionError(SENT) from error

    with pytest.raises(ZeroDivisionError) as caught:
        inner()
    with caplog.at_level("ERROR", logger="nbllm.service"):
        log_failure("r1", caught.value, problem_of(caught.value), say_why=False)
    assert "ZeroDivisionError in inner (" in caplog.text
    assert "from KeyError in inner (" in caplog.text
    assert SENT not in caplog.text


def test_tracebacks_of_libraries_are_logged_by_their_way() -> None:
    """What uvicorn or asyncio log of an exception has no text of it: not the traceback, not the task that is shown."""
    kept = io.BytesIO()
    writer = LineWriter(kept)

    async def forgotten() -> None:
        async def fails() -> None:
            raise ValueError(SENT)

        task = asyncio.create_task(fails())
        await asyncio.wait([task])
        del task

    with logging_to(writer, "uvicorn.error", "asyncio"):
        asyncio.run(forgotten())
        try:
            int(SENT)
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    writer.close()
    text = kept.getvalue().decode()
    assert "Exception in ASGI application" in text
    assert "Task exception was never retrieved" in text
    assert text.count("ValueError in") == 2
    assert SENT not in text


@pytest.mark.parametrize("captured", [False, True], ids=["", "somebody captures them"])
def test_of_a_flows_warning_the_place_is_logged(captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning may hold what a print may: file, line and category are logged, what it says with log_prompts."""
    if captured:  # and has put something else there since
        monkeypatch.setattr(logging, "_warnings_showwarning", warnings.showwarning)
    usual, texts = warnings.showwarning, []
    for say_why in (False, True):
        kept = io.BytesIO()
        writer = LineWriter(kept)
        with warnings.catch_warnings(), logging_to(writer, "nbllm", say_why=say_why):
            warnings.simplefilter("always")
            warnings.warn(f"odd: {SENT}", UserWarning, stacklevel=1)
            warnings.warn("a soft budget is passed", nbllm.errors.NbllmWarning, stacklevel=1)
        writer.close()
        texts.append(kept.getvalue().decode())
    assert ("test_failures_logged.py" in texts[0], "UserWarning" in texts[0], SENT in texts[0]) == (True, True, False)
    assert "a soft budget is passed" in texts[0]
    assert SENT in texts[1]
    assert warnings.showwarning is usual
