"""The files of an export that are made from templates: the app, its tests, containers, deployment, monitoring, README."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from nbllm.export.data_files import DataFiles
from nbllm.export.settings_file import SettingsFile
from nbllm.export.templating import filled, templates
from nbllm.settings.addresses import address_variable

PORT = 8080
WORKER = ("celery", "--app", "nbllm.service.worker", "worker")
"""What runs jobs, in a container."""
WAITING_METRIC = "nbllm_requests_waiting"
"""The service's gauge of requests that wait for their turn."""
JOBS_QUEUE = "nbllm:{app}:celery:jobs"
"""The list in Redis in which ids of an app's jobs wait (service/celery_app.py)."""
_WIDTH = 88
_NOT_IN_THE_IMAGE = {"requirements.txt", "requirements-unhashed.txt"}


def project_files(
    *,
    app: str,
    flow: str,
    files: Mapping[str, bytes],
    settings: SettingsFile,
    data: DataFiles,
    examples: bool,
    ruff: Mapping[str, str],
) -> dict[str, bytes]:
    """Return path -> bytes.

    files: those that are there already; app: the name for containers; data: to where paths lead; ruff: what ruff.toml says.
    """
    inside = _in_the_image(files, examples=examples)
    environment = _environment(settings)
    values = {
        "app": app,
        "app_title": app.replace("-", " ").capitalize(),
        "flow": flow,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "port": str(PORT),
        "imports": _app_imports(data),
        "app_lines": _app_lines(app, flow, data, examples=examples),
        "copies": _copies(inside),
        "kept": "\n".join(f"!{path}" for path in inside),
        "worker_entrypoint": f'"{WORKER[0]}"',
        "worker_command": ", ".join(f'"{word}"' for word in WORKER[1:]),
        "queue_metric": WAITING_METRIC,
        "queue_name": JOBS_QUEUE.format(app=app),
        "environment": _compose_environment(environment | _places(settings)),
        "env": _kubernetes_environment(environment, app),
        "keys": _keys_table(settings),
        "secret": "".join(f" --from-literal={name}=..." for name in settings.keys),
        "servers": _servers_text(settings),
        "configmap": _configmap(app, settings),
        **ruff,
    }
    return {path: filled(text, values).encode() for path, text in templates().items()}


def _app_imports(data: DataFiles) -> str:
    os_line = "import os\n" if data.files else ""
    return f"{os_line}from pathlib import Path\n\nfrom nbllm.service import create_app"


def _app_lines(app: str, flow: str, data: DataFiles, *, examples: bool) -> str:
    here = "HERE = Path(__file__).resolve().parent\n"
    given = [f"flows=[flows.{flow}]", 'settings=HERE / "settings.toml"', f'name="{app}"']
    given += ['examples=HERE / "examples.json"'] if examples else []
    call = f"app = create_app({', '.join(given)})"
    if len(call) > _WIDTH:
        call = "app = create_app(\n" + "".join(f"    {one},\n" for one in given) + ")"
    if not data.files:
        return f"\nimport flows\n\n{here}\n{call}"
    place = 'HERE / "data"' if data.below else "HERE"
    why = "# The flow's relative paths lead to its files, as they did from the notebook's folder.\n"
    return f"\n{here}{why}os.chdir({place})\n\nimport flows  # noqa: E402 - it may read files as soon as it is imported\n\n{call}"


def _in_the_image(files: Collection[str], *, examples: bool) -> list[str]:
    """Return files and folders that the image holds beside the installed packages."""
    tops = {path.partition("/")[0] for path in files} - _NOT_IN_THE_IMAGE - {"vendor"}
    return sorted(tops | {"app.py"} | ({"examples.json"} if examples else set()))


def _copies(inside: Collection[str]) -> str:
    single = [name for name in inside if PurePosixPath(name).suffix]
    folders = [name for name in inside if not PurePosixPath(name).suffix]
    return "\n".join([f"COPY {' '.join(single)} ./", *(f"COPY {name}/ {name}/" for name in folders)])


def _environment(settings: SettingsFile) -> dict[str, str]:
    """Return the variables that the service reads; "" for those whose value only the user has."""
    found = dict.fromkeys(settings.keys, "")
    if settings.key_hosts:
        found["NBLLM_KEY_HOSTS"] = ",".join(settings.key_hosts)
    return found


def _compose_environment(environment: Mapping[str, str]) -> str:
    lines = [f"    {name}: {_quoted(value)}" if value else f"    {name}: ${{{name}:-}}" for name, value in environment.items()]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Return a text as YAML, with the $ that compose and Kubernetes would read as a variable's doubled."""
    return json.dumps(text).replace("$", "$$")


def _kubernetes_environment(environment: Mapping[str, str], app: str) -> str:
    pad = " " * 12
    return "\n".join(
        f"{pad}- {{ name: {name}, value: {_quoted(value)} }}"
        if value
        else f"{pad}- {{ name: {name}, valueFrom: {{ secretKeyRef: {{ name: {app}, key: {name} }} }} }}"
        for name, value in environment.items()
    )


def _places(settings: SettingsFile) -> dict[str, str]:
    """Return variables that say where a model server of the notebook's machine is now, and what may go there; "" as above."""
    names = [address_variable(endpoint) for endpoint in settings.local]
    return dict.fromkeys([*names, *(["NBLLM_KEY_HOSTS"] if names and not settings.key_hosts else [])], "")


def _servers_text(settings: SettingsFile) -> str:
    if not settings.local:
        return ""
    rows = "\n".join(f"| `{address_variable(endpoint)}` | {endpoint} |" for endpoint in settings.local)
    held = [name for name, endpoint in settings.keys.items() if endpoint in settings.local]
    key = f" A key goes to another host only when you say so: `NBLLM_KEY_HOSTS={held[0]}@THE.HOST`." if held else ""
    return (
        "## Model servers\n\n"
        "These were on the notebook's machine. Where the service runs they are elsewhere, and a local engine has\n"
        "another port at each start: a variable says where, up to and including /v1; without it `settings.toml` does."
        f"{key}\n\n| variable | endpoint |\n|---|---|\n{rows}\n"
    )


def _configmap(app: str, settings: SettingsFile) -> str:
    given = "".join(f" --from-literal={name}=..." for name in _places(settings))
    return f"    kubectl create configmap {app}-settings{given}    # see Model servers" if given else ""


def _keys_table(settings: SettingsFile) -> str:
    if not settings.keys:
        return "None is needed."
    rows = "\n".join(f"| `{name}` | {endpoint} |" for name, endpoint in settings.keys.items())
    told = "They are read from the environment. No file here holds one."
    return f"| variable | whose key |\n|---|---|\n{rows}\n\n{told}"
