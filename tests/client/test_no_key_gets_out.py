"""Sixty shapes of keys against every way out: each is an endpoint's key, a server echoes it, and it is nowhere after that."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbllm
from nbllm import Client, Endpoint, Reply, errors, flow, use
from nbllm.core.ports import Filter
from nbllm.core.reply_view import reply_plain
from nbllm.notebook.answer_view import bundle
from nbllm.streams import Stream
from tests.fault_behaviours import Behaviour, error, error_in_band, ok, redirect, reset
from tests.fault_server import FaultServer
from tests.key_shapes import KEYS

NBLLM = str(Path(nbllm.__file__).parent)
Door = Callable[[Client, str], Any]
DOORS: dict[str, Door] = {
    "ask": lambda client, model: client.ask("Say hi", model=model, retries=0),
    "stream": lambda client, model: client.stream("Say hi", model=model, retries=0),
    "aask": lambda client, model: asyncio.run(client.aask("Say hi", model=model, retries=0, cache="off")),
    "schema": lambda client, model: client.ask("Say hi", model=model, retries=0, repairs=0, schema={"type": "object"}),
    "embed": lambda client, model: client.embed(["hi"], model=model, retries=0),
}


def faults(key: str) -> dict[str, Behaviour]:
    """Model -> an answer that holds the key wherever a server can put it."""
    told = f"Incorrect API key provided: {key}. You sent 'Authorization: Bearer {key}'."
    back = {"X-Request-Id": key, "Retry-After": key, "X-RateLimit-Limit-Requests": key, "Set-Cookie": f"key={key}", "Server": key}
    named = {
        f"e{status}": error(status, told, headers=back, code=key, type=key, param=key)
        for status in (400, 401, 402, 403, 404, 413, 422, 429, 500, 503)
    }
    body = {"id": key, "model": key, "system_fingerprint": key, "usage": {"prompt_tokens": key}}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": key}
    return named | {
        "text": Behaviour(status=500, headers=back, body=told.encode(), content_type="text/plain"),
        "long": error(400, "x" * (299 - len(told)) + told),
        "detail": Behaviour(status=422, body=json.dumps({"detail": [{"loc": ["body", key], "msg": told}]}).encode()),
        "page": Behaviour(body=f"<html>{told}</html>".encode(), content_type="text/html"),
        "malformed": Behaviour(body=f'{{"choices": [{{"{key}'.encode(), content_type="application/json"),
        "elsewhere": redirect(f"http://127.0.0.1:9/{key}").with_(headers={**back, "Location": f"http://{key}@127.0.0.1:9/"}),
        "in_band": error_in_band().with_(
            broken_line=b"data: " + json.dumps({"error": {"message": told, "code": key, "type": key}}).encode() + b"\n\n"
        ),
        "broken_line": Behaviour(broken_line=f'data: {{"choices": "{key}\n\n'.encode(), headers=back),
        "reset": reset("tokens"),
        "cut": reset("request"),
        "quiet": error(401, "No."),
        "odd_finish": Behaviour(finish=key, headers=back),
        "odd_fields": Behaviour(body=json.dumps({**body, "choices": [choice]}).encode(), headers=back),
        "fine": ok(headers=back),
    }


def ways(kind: str) -> dict[str, str]:
    """Model -> the door that a shape of key goes through: each shape meets each answer, each answer comes through each door.

    The door changes from answer to answer and from shape to shape, so that of 80 shapes 16 meet an answer at the same door.
    """
    start, names = list(KEYS).index(kind), list(DOORS)
    return {model: names[(start + place) % len(names)] for place, model in enumerate(faults(""))}


@functools.cache
def parts(key: str) -> list[str]:
    """What must be nowhere: every twelve characters in a row of the key's last twenty-four, as they are and as JSON has them."""
    tail = key[-24:]
    windows = {tail[start : start + 12] for start in range(max(1, len(tail) - 11))}
    return sorted(windows | {json.dumps(window)[1:-1] for window in windows})


class Found:
    """Everything that came out, by where it came out."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.leaks: list[str] = []
        self.looked_at = 0

    def look(self, where: str, text: str) -> None:
        """Note a place that shows the key."""
        self.looked_at += 1
        for part in parts(self.key):
            if part in text:
                at = text.index(part)
                self.leaks.append(f"{where}: ...{text[max(0, at - 60) : at + 40]!r}")
                return


def look_at_error(found: Found, where: str, exc: BaseException) -> None:
    """Look at all that an error says, its causes and, because some tracebacks show them, the variables in nbllm's own frames."""
    found.look(f"{where}: str", str(exc))
    found.look(f"{where}: repr", repr(exc))
    found.look(f"{where}: fields", repr(vars(exc)))
    told = traceback.TracebackException.from_exception(exc)
    found.look(f"{where}: traceback", "".join(told.format()))
    seen: set[int] = set()
    todo: list[BaseException | None] = [exc]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
        found.look(f"{where}: cause {type(one).__name__}", f"{one} {one!r}")
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename.startswith(NBLLM):
                for name, value in frame.f_locals.items():
                    found.look(f"{where}: {name} in {frame.f_code.co_qualname}", repr(value))


def look_at_reply(found: Found, where: str, reply: Reply) -> None:
    """Look at all that a reply shows."""
    found.look(f"{where}: repr", repr(reply))
    found.look(f"{where}: markdown", reply._repr_markdown_())
    found.look(f"{where}: attempts", repr(reply.attempts))
    found.look(f"{where}: fields", repr([getattr(reply, name) for name in ("model", "finish_reason", "usage", "notes", "message")]))


def outcome(door: Door, client: Client, model: str) -> Any:
    """Go through a door and return the reply, or the error."""
    try:
        result = door(client, model)
        if isinstance(result, Stream):
            list(result)
            return result.reply
    except errors.NbllmError as exc:
        return exc
    else:
        return result


def look_at_client(found: Found, client: Client) -> None:
    """Look at what the client says of itself, its settings and its books."""
    lab = client.settings.endpoints["lab"]
    call = client.start("Say hi", model="lab/fine")
    found.look("request", repr(call.request))
    look_at_reply(found, "live", call.reply)
    found.look("client", f"{client!r} {client.settings!r} {lab!r} {lab} {client.settings.origins!r}")
    found.look("settings", repr(client.settings.explain()))
    found.look("models", repr(client.models()))
    for by in ("model", "feature", "status", "total"):
        table = client.usage(by)
        found.look(f"usage by {by}", f"{table} {table!r}")
    for row in client.ledger.calls(Filter(), limit=1000):
        found.look("ledger", f"{row!r} {client.ledger.attempts(row.call_id)!r}")
    for entry in client.store.entries():
        found.look("cache", repr(entry))
    kept = client.recordings.newest(1000)
    assert len(kept) >= 3
    found.look("recordings", repr(kept))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Every log record of every library, in words."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(logging.Formatter().format(record) + repr(record.args))

    root, handler = logging.getLogger(), Keep(logging.DEBUG)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.mark.parametrize("kind", KEYS)
def test_no_key_gets_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], logged: list[str]
) -> None:
    """Not in errors, tracebacks, replies, ledger, recordings, cache, logs, warnings, settings, output, or any file on disk."""
    key = KEYS[kind]
    found = Found(key)
    monkeypatch.setenv("PLANTED_VALUE", key)
    planted = {"api_key": key} if len(kind) % 2 else {"api_key_env": "PLANTED_VALUE"}
    asked: list[Any] = []
    with FaultServer() as server, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for model, behaviour in faults(key).items():
            server.script(model, [behaviour])
        lab = Endpoint(base_url=server.base_url, headers={"X-Key": "$PLANTED_VALUE"}, **planted)
        with Client(home=tmp_path / "home", endpoints={"lab": lab}, recordings=True, model="lab/fine") as client:
            for model, door in ways(kind).items():
                result = outcome(DOORS[door], client, f"lab/{model}")
                asked.append(result)
                client.reset_breakers()
                if isinstance(result, BaseException):
                    look_at_error(found, f"{door} {model}", result)
                elif isinstance(result, Reply):
                    look_at_reply(found, f"{door} {model}", result)

            @flow
            def answer(secret: str) -> str:
                return nbllm.ask(f"My key is {secret}, keep it.", model="lab/fine").text

            with use(client):
                answer(key)
            look_at_client(found, client)
            assert any(key in str(request.headers) for request in server.requests)
    found.look("warnings", repr([str(warning.message) for warning in warned]))
    found.look("logs", "\n".join(logged))
    found.look("output", "".join(capfd.readouterr()))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        found.look(str(path.relative_to(tmp_path)), path.read_bytes().decode("latin-1"))
    assert len([result for result in asked if isinstance(result, errors.CallFailed)]) >= 20
    assert len([result for result in asked if isinstance(result, Reply)]) >= 1
    assert found.looked_at > 300
    assert not found.leaks, "\n".join(found.leaks)


@pytest.mark.parametrize("kind", list(KEYS)[::8])
def test_a_key_that_an_answer_speaks_is_not_shown_and_does_not_last(kind: str, tmp_path: Path) -> None:
    """`.text` is what came; what is shown masks the key, and neither the cache nor any other file has it."""
    key = KEYS[kind]
    found = Found(key)
    with FaultServer() as server:
        server.script("spoken", [ok("Your key is ", key, ", keep it.")])
        lab = Endpoint(base_url=server.base_url, api_key=key)
        with Client(home=tmp_path / "home", endpoints={"lab": lab}, recordings=True) as client:
            for _ in range(2):
                with pytest.warns(errors.NbllmWarning, match="was not kept in the cache"):
                    reply = client.ask("Which key?", model="lab/spoken")
                assert reply.source == "model"
                assert reply.text == f"Your key is {key}, keep it."
                found.look("repr", repr(reply))
                found.look("markdown", reply._repr_markdown_())
                found.look("plain", reply_plain(reply))
                found.look("screen", repr(bundle(reply.text, "", reply.notes)))
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        found.look(str(path.relative_to(tmp_path)), path.read_bytes().decode("latin-1"))
    assert found.looked_at > 10
    assert not found.leaks, "\n".join(found.leaks)


MIXED_FAULTS = ("e401", "e400", "e500", "in_band", "odd_finish", "fine")
NOTEBOOK_START = """
import os, warnings
import nbllm
from nbllm import Client, Endpoint
ends = {f"k{i}": Endpoint(base_url=os.environ["SERVER"], api_key_env=f"PLANTED_{i}") for i in range(int(os.environ["COUNT"]))}
client = Client(endpoints=ends, recordings=True, retries=0)
nbllm.set_process_client(client)
%load_ext nbllm
%xmode Minimal
"""
NOTEBOOK_END = (
    "%xmode Verbose",
    "%llm_config",
    "%llm_usage",
    "%llm_calls",
    "%llm_models",
    "%tb",
    "print(client, client.settings, ends)",
    "import IPython; print(IPython.display.Markdown(answer._repr_markdown_()).data, repr(answer))",
    "client.close()",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_no_key_gets_into_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run by nbclient, with short tracebacks and ones that show variables: not in outputs, errors, metadata, or the home."""
    import nbformat
    from nbclient import NotebookClient

    cells = [NOTEBOOK_START]
    with FaultServer() as server:
        for number, key in enumerate(KEYS.values()):
            monkeypatch.setenv(f"PLANTED_{number}", key)
            model = MIXED_FAULTS[number % len(MIXED_FAULTS)]
            server.script(f"{model}-{number}", [faults(key)[model]])
            cells.append(f"%%llm -m k{number}/{model}-{number} -o answer\nSay hi")
            if number % 5 == 0:  # each answer is met so; formatting all variables of all frames takes IPython 0.1 s
                cells += ["%xmode Verbose", "%tb", "%xmode Minimal"]
        monkeypatch.setenv("SERVER", server.base_url)
        monkeypatch.setenv("COUNT", str(len(KEYS)))
        monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
        cells += NOTEBOOK_END
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=60, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
        assert len(server.requests) >= len(KEYS)
    text = nbformat.writes(notebook)
    assert text.count('"output_type": "error"') > len(KEYS) // 2
    assert text.count("k0/") > 1
    (tmp_path / "ran.ipynb").write_text(text, encoding="utf-8")
    look_at_files(tmp_path, list(KEYS.values()))


def test_no_key_gets_into_what_the_doctor_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys in variables, in an endpoint's headers, and pasted into a settings file by mistake."""
    from nbllm.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    # Hundreds of runs need not look up the same packages and the same ports hundreds of times.
    monkeypatch.setattr(importlib.metadata, "version", functools.cache(importlib.metadata.version))
    monkeypatch.setattr("nbllm.providers.listeners._TABLES", ())
    for number, key in enumerate(KEYS.values()):
        monkeypatch.setenv(f"PLANTED_{number}_KEY", key)
        monkeypatch.setenv("OPENAI_API_KEY", key)
        url, printed = "http://127.0.0.1:9/v1", ""
        for lines in (
            f'api_key_env = "PLANTED_{number}_KEY"\nheaders = {{X-Key = "$PLANTED_{number}_KEY"}}',
            f'api_key_env = "{key}"',
            f'api_key = "{key}"',
            f'headers = {{Authorization = "Bearer {key}"}}',
        ):
            (tmp_path / "nbllm.toml").write_text(f'[endpoints.lab]\nbase_url = "{url}"\n{lines}\n')
            for arguments in (["doctor"], ["doctor", "--json"]) if number % 8 == 0 else (["doctor"],):
                main(arguments)
                told = capsys.readouterr()
                printed += told.out + told.err
        assert "endpoints" in printed or "settings" in printed
        found = Found(key)
        found.look("doctor", printed)
        assert not found.leaks, "\n".join(found.leaks)


def look_at_files(folder: Path, keys: list[str]) -> None:
    """Look for every key in every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        text = path.read_bytes().decode("latin-1")
        for key in keys:
            found = Found(key)
            found.look(str(path.relative_to(folder)), text)
            assert not found.leaks, "\n".join(found.leaks)
