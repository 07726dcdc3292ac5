"""What runs in the clean process of a proof: import the module offline, run the flow as recorded, tell what was seen."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nbllm import Endpoint, Settings, set_process_client
from nbllm.core.messages import Request
from nbllm.core.reply import Reply
from nbllm.core.routing_facts import Facts
from nbllm.export import other_times
from nbllm.export.cut_off import cut_off
from nbllm.export.open_things import open_things, open_things_beside
from nbllm.export.proof import APP_PROBLEM, report
from nbllm.export.read_only import ReadOnly
from nbllm.following import Following
from nbllm.live import LiveCall
from nbllm.replayed import RecordedAnswers, question_of
from nbllm.settings.strategies import Names, models_of
from nbllm.testing import offline


def main() -> None:
    """Read a task from stdin, do it, and write what was found to stdout."""
    task = json.loads(sys.stdin.read())
    is_cut_off = cut_off()  # before there is a second thread
    sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - what reads from a person finds nobody
    warnings.simplefilter("ignore")
    told: dict[str, Any] = {
        "problems": [], "skipped": [], "imported_s": None, "app": False, "seen": {}, "written": [], "cut_off": is_cut_off,
    }  # fmt: skip
    if task["days"]:
        other_times.install()
        # constants of the module are made at that time too
        other_times.set_to(task["runs"][-1]["started_at"] + task["days"][0] * _DAY_S)
    answers = RecordedAnswers()
    client = _client(task, answers)
    set_process_client(client)
    try:
        # Windows makes the pipe of an event loop from two sockets on loopback.
        with offline(loopback=os.name == "nt"):
            module = _imported(task, told, client)
            if module is not None:
                for run in task["runs"]:
                    function = getattr(module, task["flow"])
                    told["seen"][run["run"]] = _replays(function, run, task["around"], answers, task["days"])
            if module is not None and task["app"]:
                _make_app(told)
    finally:
        client.close()
    report(told)


class _Replaying(Following):
    """A client whose routes are the lists of their models, on which the model that was recorded answers."""

    answers: RecordedAnswers
    module: str
    asked_in: int | None = None
    """The first line of the module that asked while it was being imported, from whatever thread."""

    def _note_line(self) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0) if self.asked_in is None else None  # noqa: SLF001
        while frame is not None and not (frame.f_code.co_filename == self.module and frame.f_code.co_name == "<module>"):
            frame = frame.f_back
        self.asked_in = self.asked_in if frame is None else frame.f_lineno

    def _wait(self, request: Request) -> Reply:
        self._note_line()
        return super()._wait(request)

    async def _await(self, request: Request) -> Reply:
        self._note_line()
        return await super()._await(request)

    def _live(self, request: Request, *, own_thread: bool = True) -> LiveCall:
        self._note_line()
        return super()._live(request, own_thread=own_thread)

    def _recorded_rung(self, request: Request) -> str | None:
        return self.answers.rung_of(request)

    def _open_choice(self, name: str, facts: Facts) -> Names | None:  # noqa: ARG002 - a list hangs on nothing
        return models_of(name, self.settings.routes)


def _client(task: Mapping[str, Any], answers: RecordedAnswers) -> _Replaying:
    given = dict(task["settings"])
    endpoints = {name: Endpoint(**values) for name, values in given.pop("endpoints", {}).items()}
    values: dict[str, Any] = {name: value for name, value in given.items() if value}
    for name, models in values.pop("routes", {}).items():
        values[f"routes.{name}"] = models
    if not values.get("ladder"):
        values.setdefault("model", "sim/small")
    kinds = ("openai_compatible", "litellm", "simulated")
    client = _Replaying(
        settings=Settings(home=Path(task["home"])),
        endpoints=endpoints,
        providers=dict.fromkeys(kinds, answers),
        cache="off",
        retries=0,
        discover=False,
        **values,
    )
    client.answers, client.module = answers, task["module"]
    return client


def _imported(task: Mapping[str, Any], told: dict[str, Any], client: _Replaying) -> ModuleType | None:
    spec = importlib.util.spec_from_file_location("flows", task["module"])
    if spec is None or spec.loader is None:  # cannot be: the path ends in .py
        raise ImportError(task["module"])
    module = importlib.util.module_from_spec(spec)
    sys.modules["flows"] = module
    # As the service has it: modules are looked for beside app.py, also where relative paths lead into data/.
    sys.path[:0] = [*task["paths"], str(Path(task["module"]).parent)]
    started_s = time.monotonic()
    read_only = ReadOnly(Path(task["module"]), Path(task["home"]), strict=task["read_only"])
    try:
        with read_only:
            spec.loader.exec_module(module)
    except BaseException as error:  # SystemExit of a cell is a finding too
        told["written"] = list(read_only.written.values())
        told["problems"].append(
            f"Importing the module fails: {type(error).__name__}: {_said(error, task['module'])}{_line_of(error, task['module'])}"
        )
        return None
    told["imported_s"] = round(time.monotonic() - started_s, 3)
    told["written"] = list(read_only.written.values())
    told["problems"] += read_only.left() if task["read_only"] else ()
    told["problems"] += open_things(module, Path(task["module"]).read_text(encoding="utf-8"))
    told["problems"] += open_things_beside(Path(task["module"]))
    if calls := client.answers.calls:
        times = "once" if calls == 1 else f"{calls} times"
        line = f" (line {client.asked_in} of the module)" if client.asked_in else ""
        told["problems"].append(f"Importing the module asks a model {times}; a service would at each start.{line}")
    if not callable(getattr(module, task["flow"], None)):
        told["problems"].append(f"The module has no function {task['flow']}.")
        return None
    return module


def _make_app(told: dict[str, Any]) -> None:
    """Import app.py, which refuses a flow that cannot be served. Without the service's packages that is left to the reader."""
    try:
        importlib.import_module("app")
        told["app"] = True
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {
            "fastapi",
            "uvicorn",
            "limits",
            "structlog",
            "prometheus_client",
        }:
            told["skipped"].append(
                f"{error.name} is not installed here, so the app itself was not tried: pip install nbllm[service]"
            )
        else:
            told["problems"].append(f"The app cannot be imported: {error!s:.300}")
    except BaseException as error:  # see _imported
        # A service tells everything that is wrong with a flow at once: each is a problem of its own.
        faults = getattr(error, "faults", None) or (f"{type(error).__name__}: {error!s:.500}",)
        told["problems"] += [f"{APP_PROBLEM}{fault:.500}" for fault in faults]


def _as_json(function: Any, result: Any) -> Any:
    """Return what a flow returned as the service would write it: by the flow's annotation, else by its own type."""
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic_core import to_jsonable_python

    hint = _hints(function).get("return", Any)
    try:
        return TypeAdapter(hint).dump_python(result, mode="json", warnings=False)
    except (PydanticUserError, ValueError, TypeError):
        return to_jsonable_python(result, fallback=str)


def _hints(function: Any) -> dict[str, Any]:
    """Return a function's annotations, {} where they cannot be resolved."""
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # annotations are the user's code
        return {}


def _rebuilt(hint: Any, value: Any) -> Any:
    """Return a recorded argument as what its annotation wants, as the service reads it. Raises ValueError."""
    from pydantic import TypeAdapter

    from nbllm.core.typed_schema import modern

    try:
        adapter = TypeAdapter(modern(hint))
    except Exception:  # of whatever kind; such a flow cannot be served, which is told elsewhere
        return value
    return adapter.validate_json(json.dumps(value), strict=True)


def _said(error: BaseException, path: str) -> str:
    """Return an error's text; paths in it are those of the project, as --include takes them, and not of the clean process."""
    text = str(error)
    for folder in (Path.cwd(), Path(path).parent, Path(path).parent.resolve()):
        text = text.replace(f"{folder}{os.sep}", "")
    return text[:300]


def _line_of(error: BaseException, path: str) -> str:
    at, line = error.__traceback__, None
    while at is not None:
        line = at.tb_lineno if at.tb_frame.f_code.co_filename == path else line
        at = at.tb_next
    return f" (line {line} of the module)" if line else ""


_AGAIN_S = 20.0
_DAY_S = 86_400


def _replays(
    function: Any, run: Mapping[str, Any], around: Sequence[Mapping[str, Any]], answers: RecordedAnswers, days: Sequence[float]
) -> list[dict[str, Any]]:
    """Run it with the recorded arguments, once or, where days are given, at several times: so many days from the recording."""
    if not days:
        return [_replayed(function, run, around, answers)]
    seen: list[dict[str, Any]] = []
    started_s = time.monotonic()
    for day in days:
        if time.monotonic() - started_s > _AGAIN_S:
            break
        other_times.set_to(run["started_at"] + day * _DAY_S)
        seen.append(_replayed(function, run, around, answers))
    return seen


def _replayed(
    function: Any, run: Mapping[str, Any], around: Sequence[Mapping[str, Any]], answers: RecordedAnswers
) -> dict[str, Any]:
    """Run it once: what it sent, which calls of %%llm cells it made, what it returned; or why it failed."""
    answers.begin(run["calls"], around)
    try:
        args, kwargs = _bound(function, run["arguments"])
    except ValueError as error:
        return {"error": f"its arguments do not fit the flow any more ({_place(error)})"}
    try:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except Exception as error:
        return {"error": f"it fails: {type(error).__name__}: {error!s:.300}"}
    sent = [question_of(wire.content) for wire in answers.requests]
    recorded = [question_of(call["prompt"]) for call in (*run["calls"], *answers.used)]
    return {"sent": sent, "recorded": recorded, "around": answers.used, "result": _as_json(function, result)}


def _place(error: ValueError) -> str:
    """Return what is wrong with arguments, without their values."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)[:200]
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def _bound(function: Any, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return recorded arguments as they are passed: by position where a function wants that."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    hints = _hints(function)
    if unknown := sorted(arguments.keys() - inspect.signature(function).parameters.keys()):
        raise ValueError(f"it has no parameter {', '.join(unknown)}")
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in arguments:
            continue
        value = arguments[name]
        if name in hints and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            value = _rebuilt(hints[name], value)
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += value
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs |= value
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[name] = value
        else:
            args.append(value)
    return args, kwargs
