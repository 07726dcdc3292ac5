"""A launch, thought through before anything is started: what runs, with which words and variables, and whether it fits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from shutil import which
from typing import Any

from nbllm.engines.catalog import EngineKind, engine_kind
from nbllm.engines.engine import check_name
from nbllm.engines.fit import Fit, fit
from nbllm.engines.gpu import gpus, machine_bytes, machine_free_bytes
from nbllm.engines.model_files import ModelFiles, local, model_files
from nbllm.engines.options import Chosen, choose, word
from nbllm.errors import EngineNotPossible, UnknownModel
from nbllm.settings.option import BadValue, shown

_FAMILY = re.compile(r"[A-Za-z]{3,}")
_LOOK_S = 30.0
PYTHON_PATHS = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"})
"""Variables that another environment's Python does not get: modules of this one would stand in front of its own."""
_PYTHONS = ("bin/python", "Scripts/python.exe")
_MAX_IDENTITY_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One launch. command: the program and its first words. names: what the server calls the model; it is asked by the first.

    port: None for any free one. fit: whether it fits, already checked unless force was given.
    """

    kind: EngineKind
    name: str
    model: str
    names: tuple[str, ...]
    command: tuple[str, ...]
    model_argument: tuple[str, ...]
    chosen: Chosen = field(repr=False)
    fit: Fit = field(repr=False)
    identity: str = ""
    port: int | None = None
    usd_per_hour: Decimal | float | None = None

    def argv(self, port: int) -> list[str]:
        """Return the argument list: the program, the model, what every launch of this engine has, and the options."""
        words = [*self.command, *self.model_argument]
        for part in self.kind.arguments:
            if part == "{name}":
                words += self.names
            else:
                words.append(str(port) if part == "{port}" else part)
        return [*words, *self.chosen.arguments]

    @property
    def other_python(self) -> bool:
        """Whether it runs on the Python of another environment, which was named."""
        return self.command[1:2] == ("-m",) and self.command[0] != sys.executable

    def environment(self, port: int) -> dict[str, str]:
        """Return the engine's own variables, the key left out."""
        own = {} if not self.kind.simulated else {"PYTHONPATH": _with_nbllm(os.environ.get("PYTHONPATH", ""))}
        own |= {name: text.replace("{port}", str(port)) for name, text in self.kind.environment.items()}
        return {**own, **self.chosen.environment}


def plan_launch(
    kind: str,
    model: str,
    options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    served_name: str | None = None,
    python: str | Path | None = None,
    port: int | None = None,
    force: bool = False,
    usd_per_hour: Decimal | float | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """Think a launch through. Nothing is started and nothing is sent; the disk and nvidia-smi are looked at.

    kind: a name of nbllm.engines.catalog. model: a folder, a file or a model's id. options: nbllm.engines.options, dashes or
    underscores, values or their text. name: of the endpoint, by default the engine's. served_name: what the server calls the model.
    python: of the engine's own environment. port: by default a free one. force: launch what does not fit. usd_per_hour: what the
    machine costs, for the status. Raises EngineNotPossible, EngineDoesNotFit.
    """
    row = engine_kind(kind)
    chosen = choose(row, options or {})
    files = ModelFiles(None, {}, None) if row.simulated else model_files(model, chosen.values.get("revision"), environ)
    endpoint, target, served = _checked(row, model, files, name or row.endpoint, served_name, port)
    command = _command(row, python, environ)
    seen = gpus(environ) if row.sized else None
    fitting = fit(row, model, chosen.values, files, seen, machine_bytes(), machine_free_bytes()).checked(force=force)
    return Plan(
        kind=row,
        name=endpoint,
        model=model,
        names=(served,) if served else _names(row, target, files.path),
        command=command,
        model_argument=_model_words(row, command, target, files.path),
        chosen=chosen,
        fit=fitting,
        identity=identity_of(row, target, files, chosen),
        port=port,
        usd_per_hour=usd_per_hour,
    )


def _checked(
    kind: EngineKind, model: str, files: ModelFiles, name: str, served_name: str | None, port: int | None
) -> tuple[str, str, str | None]:
    """Return the endpoint's name, the model as the engine gets it and the name that was asked for. Raises EngineNotPossible."""
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536):
        raise EngineNotPossible(f"port must be 1 to 65535, not {port!r}. Nothing was started.")
    check_name(name)
    if not model.strip():
        raise EngineNotPossible("No model is named. Nothing was started.", hint="Name a folder, a file, or a model's id.")
    try:
        target = _simulated(model) if kind.simulated else str(files.path) if files.path is not None else _id(model)
        return name, target, None if served_name is None else word("served_name", served_name)
    except BadValue as error:
        raise EngineNotPossible(f"{error.problem}. Nothing was started.") from None


def _id(model: str) -> str:
    """Return a model's id. Raises EngineNotPossible for what looks like a path, BadValue for what else is none."""
    if model.startswith(("~", "/", ".", "\\")):
        raise EngineNotPossible(f"There is no file or folder {shown(model)} on this machine. Nothing was started.")
    return word("model", model)


def _model_words(kind: EngineKind, command: tuple[str, ...], target: str, path: Path | None) -> tuple[str, ...]:
    template = kind.model_file if kind.model_file and path is not None and path.is_file() else kind.model_words
    if kind.program_model and "-m" not in command:
        template = kind.program_model
    return tuple(target if part == "{model}" else part for part in template)


def _names(kind: EngineKind, target: str, path: Path | None) -> tuple[str, ...]:
    if kind.own_names:
        return (target,)
    names = names_for(target, path)
    return names if kind.several_names else names[:1]


def _simulated(model: str) -> str:
    """Return what stands behind sim/, checked: `large`, `small?fault=stall`."""
    from nbllm.providers.sim_options import parse

    name = model.removeprefix("sim/")
    try:
        parse(name)
    except UnknownModel as error:
        raise EngineNotPossible(f"{error.summary} Nothing was started.", hint=error.hint) from None
    return name


def names_for(model: str, path: Path | None) -> tuple[str, ...]:
    """Return what the server calls a model: the last part of its id, the id, and its family (qwen), so that each of them works."""
    last = (path.stem if path.is_file() else path.name) if path is not None else re.split(r"[:?]", model.rpartition("/")[2])[0]
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode() if not last.isascii() else last
    last = re.sub(r"[^\w.@+-]+", "-", plain, flags=re.ASCII).strip("-._") or "model"
    family = _FAMILY.match(last)
    names = [last] if path is not None else [last, model]
    return tuple(dict.fromkeys([*names, *([family[0].lower()] if family else [])]))


def identity_of(kind: EngineKind, target: str, files: ModelFiles, chosen: Chosen) -> str:
    """Return what stands for the engine in cache keys: kind, model, revision, and the options that change answers; never its port.

    A local folder's revision is the fingerprint of its files; files that options name count with theirs.
    """
    revision = chosen.values.get("revision") or files.fingerprint
    answers = {name: f"{text}#{_content(text)}" if _content(text) else text for name, text in chosen.answers.items()}
    told = json.dumps(answers, sort_keys=True) if answers else ""
    text = f"engine:{kind.name}:{target}@{revision}{told}"
    if len(text) <= _MAX_IDENTITY_CHARS and text.isprintable():
        return text
    return f"engine:{kind.name}:{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _with_nbllm(path: str) -> str:
    """Return PYTHONPATH with the folder that this nbllm was imported from."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *([path] if path else [])])


def _content(text: str) -> str:
    """Return the fingerprint of the file or folder that an option names (PATH, or NAME=PATH), "" when it names none."""
    path = text.partition("=")[2] or text
    return model_files(path, environ={}).fingerprint if os.sep in path and not path.startswith("{") else ""


def _command(kind: EngineKind, python: str | Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the program and its first words, absolute: it runs in an empty folder, where no file of the user's can stand in."""
    if kind.simulated:
        if python is not None:
            raise EngineNotPossible(f"{kind.title} runs on this Python only: leave python out. Nothing was started.")
        return (sys.executable, "-m", kind.module)
    if python is not None:
        return (*_python_with(kind, python), "-m", kind.module)
    found = which(kind.program, path=environ.get("PATH")) if kind.program else None
    if found is not None:
        return (str(Path(found).absolute()), *kind.serve)
    if kind.module and _has(sys.executable, kind.package):
        return (sys.executable, "-m", kind.module)
    where = f"{kind.program} is not on PATH" if kind.program else f"the Python of this kernel has no {kind.package}"
    raise EngineNotPossible(f"{kind.title} was not found: {where}. Nothing was started.", hint=kind.install)


def _python_with(kind: EngineKind, python: str | Path) -> tuple[str]:
    # Not resolved: the Python of an environment is a link, and only as that link it knows its packages.
    here = local(str(python))
    program = which(str(Path(python).expanduser()) if here is not None else str(python))
    if not kind.module:
        raise EngineNotPossible(
            f"{kind.title} is a program of its own and runs on no Python. Nothing was started.", hint=kind.install
        )
    if program is None:
        inside = here and next((path for name in _PYTHONS if (path := here / name).is_file()), None)
        raise EngineNotPossible(
            f"There is no Python at {str(python)!r:.200}. Nothing was started.",
            hint=f"Name the python program of the engine's environment, as in {inside or '/opt/vllm/bin/python'}.",
        )
    if not _has(program, kind.package):
        raise EngineNotPossible(
            f"{program} has no {kind.package}. Nothing was started.",
            hint=f"Install it there: {program} -m pip install {kind.package}",
        )
    return (str(Path(program).absolute()),)


def _has(python: str, package: str) -> bool:
    """Whether a Python has a package, without importing it."""
    environ = {name: value for name, value in os.environ.items() if name not in PYTHON_PATHS or python == sys.executable}
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        folder = Path(python).absolute().parent  # not where the user works: a folder of the package's name may lie there
        command = [python, "-c", code]
        asked = subprocess.run(command, capture_output=True, timeout=_LOOK_S, check=False, cwd=folder, env=environ)  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0
