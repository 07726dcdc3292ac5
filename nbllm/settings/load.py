"""Settings from files and environment variables.

File: nbllm.toml, else [tool.nbllm] in pyproject.toml, in the working directory or the nearest folder above that has one.
Variables: NBLLM_ and the flat name in capitals with _ for the dot: NBLLM_MODEL, NBLLM_DEADLINE_S, NBLLM_BUDGET_SESSION_USD; lists
are separated by commas. Routes and budgets per feature or user have no variables, endpoints one for their address (addresses.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nbllm.errors import ConfigurationError, SettingsFileError
from nbllm.redaction import is_secret_name, redact, register_secret
from nbllm.settings.addresses import is_address, move_endpoints
from nbllm.settings.endpoint import Endpoint, header_variable
from nbllm.settings.flat import flat_values
from nbllm.settings.model_names import refuse_strange_names
from nbllm.settings.option import BadValue
from nbllm.settings.semantic import FILES
from nbllm.settings.settings import Settings
from nbllm.settings.suggest import nearest
from nbllm.settings.tables import SETTABLE
from nbllm.settings.toml_lines import line_of

PREFIX = "NBLLM_"
MAX_FILE_BYTES = 1024 * 1024
VARIABLES: Mapping[str, str] = {option.variable: name for name, option in SETTABLE.items()}
"""Environment variable -> flat name."""


def load(start: Path | None, environ: Mapping[str, str] | None) -> Settings:
    """Return the settings of files and variables; see Settings.load."""
    environ = os.environ if environ is None else environ
    _register_secrets(environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    notes: list[str] = []
    for name, value, origin in (*_of_file(start, environ, notes), *_of_variables(environ, notes)):
        values[name] = value
        origins[name] = origin
    move_endpoints(values, origins, environ, notes)
    refuse_strange_names(values, origins)
    return Settings.from_flat(values, origins, tuple(notes))


def load_file(
    path: Path, environ: Mapping[str, str] | None, *, besides: Collection[str] = ()
) -> tuple[Settings, Mapping[str, Any], str]:
    """Return the settings of this one file and of variables, the tables of it that are not ours to read, and the file's text.

    besides: names of those tables. Raises SettingsFileError, ConfigurationError.
    """
    environ = os.environ if environ is None else environ
    _register_secrets(environ)
    text = _read(path)
    table = _table(path, text, ())
    others = {name: table[name] for name in besides if name in table}
    notes: list[str] = []
    ours = {name: value for name, value in table.items() if name not in others}
    found = [*_of_table(ours, path, text, (), environ, notes), *_of_variables(environ, notes)]
    values = {name: value for name, value, _ in found}
    origins = {name: origin for name, _, origin in found}
    move_endpoints(values, origins, environ, notes)
    refuse_strange_names(values, origins)
    return Settings.from_flat(values, origins, tuple(notes)), others, text


def load_variables(environ: Mapping[str, str]) -> Settings:
    """Return the settings of the variables alone, for who looks at what is left when a file is bad. Raises ConfigurationError."""
    _register_secrets(environ)
    notes: list[str] = []
    found = list(_of_variables(environ, notes))
    return Settings.from_flat({n: v for n, v, _ in found}, {n: o for n, _, o in found}, tuple(notes))


# ---------------------------------------------------------------------------------------------------- variables


ELSEWHERE = frozenset(
    {
        "NBLLM_SIM_SPEED",
        "NBLLM_KEY_HOSTS",
        "NBLLM_SHARED_DATA",
        "NBLLM_SERVICE_KEY",
        "NBLLM_SERVICE_KEYS_FILE",
        "NBLLM_SERVICE_ALLOWED_HOSTS",
        "NBLLM_APP",
        "NBLLM_WEBHOOK_SECRET",
    }
)
"""Variables of ours that are no settings: how fast simulated models play (providers/simulated.py), the keys of a service
(service/keys.py), its webhooks' secret, the app of a worker (service/worker.py), where the tests find labelled data, and what no
file may say, which host may get a key that a file names (providers/hosts.py)."""


def _register_secrets(environ: Mapping[str, str]) -> None:
    """Let the redactor know what looks like a secret by the name of its variable, before anything can show it."""
    for name, value in environ.items():
        if is_secret_name(name) and len(value) >= 16 and value.isprintable() and not set(" /\\:") & set(value):
            register_secret(value)


def _of_variables(environ: Mapping[str, str], notes: list[str]) -> Iterator[tuple[str, Any, str]]:
    for variable in sorted(v for v in environ if v.upper().startswith(PREFIX)):
        text = environ[variable]
        name = VARIABLES.get(variable.upper())
        if variable.upper() in ELSEWHERE or is_address(variable):
            continue
        if name is None:
            meant = nearest(variable[len(PREFIX) :], (v[len(PREFIX) :] for v in VARIABLES), cutoff=0.8)
            if meant is not None:
                raise ConfigurationError(f"There is no variable {variable}.", hint=f"Did you mean {PREFIX}{meant}?")
            notes.append(f"The environment variable {variable} is none of nbllm's and is ignored.")
            continue
        if name == "home" and text:
            text = str(Path(text).expanduser().absolute())
        if not text:
            continue  # an empty variable is how shells and CI files unset one
        try:
            for flat, value in flat_values(name, text, as_text=True):
                yield flat, value, variable
        except BadValue as error:
            raise ConfigurationError(f"{variable}: {error.problem}.", hint=error.hint) from None


# ---------------------------------------------------------------------------------------------------- files


def find_file(start: Path) -> tuple[Path, str, tuple[str, ...]] | None:
    """Return (path, text, where in it) of the nearest settings file from `start` upwards, None without one."""
    folder = start.absolute()
    for place in (folder, *folder.parents):
        own, project = place / "nbllm.toml", place / "pyproject.toml"
        if own.is_file():
            return own, _read(own), ()
        if project.is_file():
            try:
                text = _read(project)
            except SettingsFileError:
                continue  # somebody else's file: not ours to complain about
            if _mentions_us(text):
                return project, text, ("tool", "nbllm")
    return None


def _mentions_us(text: str) -> bool:
    """Whether a pyproject.toml has a [tool.nbllm] table; a broken file counts as one when it seems to."""
    import tomllib

    if "nbllm" not in text:
        return False
    try:
        return isinstance(tomllib.loads(text).get("tool", {}).get("nbllm"), dict)
    except (tomllib.TOMLDecodeError, RecursionError):
        return re.search(r"^\s*\[\s*tool\s*\.\s*[\"']?nbllm\b", text, re.MULTILINE) is not None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise SettingsFileError("larger than 1 MB", path=str(path), hint="Is this really a settings file?")
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsFileError("not UTF-8", path=str(path), line=line, hint="Save the file as UTF-8.") from None
    except OSError as error:
        raise SettingsFileError(f"cannot be read: {error.strerror or error}", path=str(path)) from None


def _of_file(start: Path | None, environ: Mapping[str, str], notes: list[str]) -> Iterator[tuple[str, Any, str]]:
    found = find_file(Path.cwd() if start is None else Path(start))
    if found is None:
        return
    path, text, prefix = found
    yield from _of_table(_table(path, text, prefix), path, text, prefix, environ, notes)


def _of_table(
    table: Mapping[str, Any], path: Path, text: str, prefix: tuple[str, ...], environ: Mapping[str, str], notes: list[str]
) -> Iterator[tuple[str, Any, str]]:
    for key, given in table.items():
        at = (*prefix, key)
        try:
            value = _prepared(key, given, path.parent, environ, notes)
            for name, checked in flat_values(key, value):
                line = line_of(text, (*prefix, *name.split(".", 2 if name.startswith("budget.") else 1)))
                origin = f"{path.name}:{line}" if line else path.name
                if isinstance(checked, Endpoint):
                    object.__setattr__(checked, "settings_file", origin)  # its own field, made for this and given to no one yet
                yield name, checked, origin
        except BadValue as error:
            inner = error.path[1:] if error.path[:1] == (key,) else error.path
            line = line_of(text, (*at, *inner))
            where = ".".join((key, *inner))
            raise SettingsFileError(error.at(where), path=str(path), line=line, hint=error.hint) from None


def _table(path: Path, text: str, prefix: tuple[str, ...]) -> Mapping[str, Any]:
    """Return our table of the file; raises SettingsFileError with the line of a syntax error."""
    import tomllib

    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"line (\d+)", str(error))
        line = int(match[1]) if match else text.rstrip("\n").count("\n") + 1
        problem = re.sub(r"\s*\(at .*\)\Z", "", str(error))
        raise SettingsFileError(
            f"no valid TOML: {problem}", path=str(path), line=line, hint="Texts need quotes; see toml.io."
        ) from None
    except RecursionError:
        raise SettingsFileError("nested too deeply", path=str(path)) from None
    for part in prefix:
        table = table[part]
    return table if isinstance(table, Mapping) else {}


def _prepared(key: str, value: Any, folder: Path, environ: Mapping[str, str], notes: list[str]) -> Any:
    """Return a file's value with what only a file has: paths relative to the file, headers that hold no key."""
    if key == "home" and isinstance(value, str):
        return str(folder / Path(value).expanduser())
    if key == "semantic_cache" and isinstance(value, Mapping):
        return {n: str(folder / Path(v).expanduser()) if n in FILES and isinstance(v, str) else v for n, v in value.items()}
    if key == "routes" and isinstance(value, Mapping):
        return {n: {**v, "plan": str(folder / Path(v["plan"]).expanduser())} if _has_plan(v) else v for n, v in value.items()}
    if key == "endpoints" and isinstance(value, Mapping):
        _check_headers(value, environ, notes)
    return value


def _has_plan(route: Any) -> bool:
    return isinstance(route, Mapping) and isinstance(route.get("plan"), str)


def _check_headers(endpoints: Mapping[str, Any], environ: Mapping[str, str], notes: list[str]) -> None:
    """Refuse headers that hold a secret, and say which ones name a variable that is not set; "$NAME" stays as it is (hosts.py)."""
    for endpoint, table in endpoints.items():
        headers = table.get("headers") if isinstance(table, Mapping) else None
        for name, text in headers.items() if isinstance(headers, Mapping) else ():
            variable = header_variable(text) if isinstance(text, str) else None
            if variable is not None:
                if environ.get(variable):
                    register_secret(environ[variable])
                else:
                    notes.append(f"Endpoint {endpoint}: the header {name} is not sent while {variable} is not set.")
            elif isinstance(text, str) and (is_secret_name(name) or redact(text) != text):
                raise BadValue(
                    f"the header {name} holds a secret; settings hold names of environment variables, never keys",
                    hint=f'Put it into an environment variable and write {name} = "$NAME_OF_THE_VARIABLE".',
                    path=(endpoint, "headers", name),
                )
