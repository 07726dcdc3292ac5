"""The checks of `nbllm doctor`, each from Settings to findings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from nbllm.cli.paper import plural, size
from nbllm.core.ports import Filter, UsageRow
from nbllm.errors import NbllmError
from nbllm.settings import Settings

if TYPE_CHECKING:
    from nbllm.storage.home import Home

Status = Literal["ok", "note", "broken"]
SHOWN = ("jupyterlab", "ipython", "litellm", "aiohttp", "numpy", "matplotlib", "diskcache", "pydantic")
FLOORS = {"starlette": "1.0.1"}
"""Packages that are no dependencies of nbllm but have known holes below these versions when something else installs them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. status: ok, note (works, but look at it) or broken. hint: what to do."""

    area: str
    status: Status
    text: str
    hint: str = ""


def settings(found: Settings) -> Iterator[Finding]:
    """What is set, and by what."""
    origins = sorted({origin for origin in (found.origin(name) for name in found.flat()) if origin != "default"})
    if origins:
        yield Finding("settings", "ok", "set by " + ", ".join(origins))
    else:
        yield Finding("settings", "ok", "all defaults: no nbllm.toml, no [tool.nbllm] in pyproject.toml, no NBLLM_* variable")
    for note in found.notes:
        yield Finding("settings", "note", note)


# ---------------------------------------------------------------------------------------------------- what lasts


def home(found: Settings) -> Iterator[Finding]:
    """Whether the home can be used, and what is in it. A home that is not there yet is made, to see, and removed again."""
    from nbllm.storage.home import Home

    path = found.home
    used = Home(path)
    if not os.path.lexists(path):  # Path.exists raises where a folder above may not be entered
        yield _home_to_be(used)
        return
    try:
        used.prepare()
        yield Finding("home", "note" if used.warning else "ok", used.warning or str(path))
        yield from _ledger(used)
        yield from _cache(used, found)
    finally:
        used.close()


def _home_to_be(used: Home) -> Finding:
    """Do what the first call does, for rights alone tell little: root has them all. Raises HomeUnusable as that call would."""
    before = {folder for folder in used.path.absolute().parents if os.path.lexists(folder)}
    try:
        used.token  # noqa: B018 - makes the folders and a file in them
    finally:
        used.close()
        made = (used.data / "run").absolute()
        for folder in (made, *made.parents):
            if folder in before:
                break
            with suppress(OSError):  # it was never made, or a call of another process uses it by now
                folder.rmdir()
    return Finding("home", "note" if used.warning else "ok", used.warning or f"{used.path} (made by the first call)")


def _ledger(used: Home) -> Iterator[Finding]:
    from nbllm.storage.ledger import SqliteLedger

    path = used.data / "ledger.db"
    if not path.exists():
        yield Finding("home", "ok", "ledger: no call yet")
        return
    ledger = SqliteLedger(used, session="nbllm doctor")
    try:
        models = ledger.usage("model", Filter())
        trouble = ledger.degraded
    finally:
        ledger.close()
    if trouble:
        yield Finding("home", "broken", f"ledger: {trouble}", f"Look at {path}; move it away to begin a new one.")
        return
    yield Finding("home", "ok", f"ledger: {_calls_and_cost(models)}, {size(path.stat().st_size)}")


def _calls_and_cost(models: Sequence[UsageRow]) -> str:
    """Return how many calls there were and what they cost, simulated dollars told from real ones."""
    from nbllm.core.usage_table import simulated_usd
    from nbllm.money import format_usd

    if not models:
        return "no call yet"
    cost = sum((row.cost_usd for row in models), Decimal(0))
    simulated, _ = simulated_usd(models)
    parts = [format_usd(cost - simulated)] if cost > simulated or not simulated else []
    parts += [f"{format_usd(simulated)} simulated"] if simulated else []
    return f"{plural(sum(row.calls for row in models), 'call')}, {' and '.join(parts)}"


def _cache(used: Home, found: Settings) -> Iterator[Finding]:
    from nbllm.storage.response_cache import DiskResponseStore

    if not (used.data / "cache").exists():
        yield Finding("home", "ok", "cache: empty")
        return
    store = DiskResponseStore(used, size_limit_bytes=int(found.cache_size_mb * 1_000_000))
    try:
        stats = store.stats()
        trouble = store.degraded
    finally:
        store.close()
    if trouble:
        yield Finding(
            "home", "broken", f"cache: {trouble}", f"Delete {stats.directory} to begin a new one; only stored answers are lost."
        )
        return
    yield Finding(
        "home", "ok", f"cache: {plural(stats.entries, 'answer')}, {size(stats.size_bytes)} of {size(stats.size_limit_bytes)}"
    )
    if stats.damaged:
        yield Finding(
            "home", "note", f"cache: {plural(stats.damaged, 'damaged entry', 'damaged entries')} set aside; they count as misses"
        )


# ---------------------------------------------------------------------------------------------------- models


def keys(_: Settings) -> Iterator[Finding]:
    """Which providers' keys are set, by the names of their variables."""
    from nbllm.providers.hosts import OTHER_KEYS, PROVIDERS

    named = {variable: provider.name for provider in PROVIDERS.values() for variable in provider.key_envs}
    named |= {variable: hosts[0].lstrip(".") for variable, hosts in OTHER_KEYS.items() if hosts}
    present = [f"{variable} ({owner})" for variable, owner in sorted(named.items()) if os.environ.get(variable, "").strip()]
    yield Finding("keys", "ok", ", ".join(present) if present else "none set; sim/small and sim/large need none")
    empty = [variable for variable in sorted(named) if variable in os.environ and not os.environ[variable].strip()]
    if empty:
        yield Finding("keys", "note", f"set but empty: {', '.join(empty)}")


def endpoints(found: Settings) -> Iterator[Finding]:
    """Whether each configured endpoint has an address that makes sense and the key that it names."""
    from nbllm.providers.hosts import headers_for, host_of, key_for

    for name, endpoint in sorted(found.endpoints.items()):
        try:
            host = host_of(endpoint.base_url)
            key_for(name, endpoint, os.environ)
            headers_for(name, endpoint, os.environ)
        except NbllmError as error:
            yield Finding("endpoints", "broken", error.summary, error.hint)
        else:
            key = f"key from {endpoint.api_key_env}" if endpoint.api_key_env else "no key"
            yield Finding("endpoints", "ok", f"{name}: {host}, {key}")


def models(found: Settings) -> Iterator[Finding]:
    """Whether some endpoint or provider answers to each model that model, ladder and routes name."""
    from nbllm.providers.catalog import Catalog
    from nbllm.route_checks import problems_of
    from nbllm.settings.strategies import named

    catalog = Catalog(found.endpoints, os.environ)
    asked = {"model": (found.model,) if found.model else (), "ladder": found.ladder}
    for setting, names in asked.items():
        good = True
        for name in names:
            try:
                if name not in found.routes:
                    catalog.rung(name)
            except NbllmError as error:
                good = False
                yield Finding("models", "broken", f"{setting} ({found.origin(setting)}): {error.summary}", error.hint)
        if names and good:
            yield Finding("models", "ok", f"{setting}: {', '.join(names)}")
    for route, spec in sorted(found.routes.items()):
        setting = f"routes.{route}"
        problems = problems_of(found, route)
        for problem in problems:
            yield Finding("models", "broken", f"{setting} ({found.origin(setting)}): {problem.summary}", problem.hint)
        if not problems:
            how = "" if isinstance(spec, tuple) else f" ({spec.strategy})"
            yield Finding("models", "ok", f"{setting}{how}: {', '.join(dict.fromkeys(named(spec)))}")


def servers(found: Settings) -> Iterator[Finding]:
    """What answers on the ports of local model servers, and which model a call without one asks."""
    import asyncio
    from dataclasses import replace

    from nbllm.providers.discovery import discover

    unnamed = asyncio.run(discover(replace(found, model=None, ladder=()), os.environ))
    local = [line for line in unnamed.considered if line.startswith("127.0.0.1") and not line.endswith("nothing listens")]
    for line in local:
        yield Finding("servers", "note", line)
    if unnamed.endpoint is not None:
        yield Finding("servers", "ok", unnamed.reason.partition(" Choose ")[0])
    elif not local:
        yield Finding("servers", "ok", "no local model server (Ollama, vLLM, LM Studio, llama.cpp) listens on its usual port")
    yield Finding("model", "ok", _default_model(found, unnamed.reason))


def _default_model(found: Settings, discovered: str) -> str:
    if found.model:
        return f"{found.model}, set by {found.origin('model')}"
    if found.ladder:
        return f"{' then '.join(found.ladder)}, set by {found.origin('ladder')}"
    return discovered if found.discover else "none: discover is off, so each call must name one"


# ---------------------------------------------------------------------------------------------------- versions


def packages(_: Settings) -> Iterator[Finding]:
    """Whether what is installed satisfies what nbllm declares, security floors included."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in requires("nbllm") or ()]
    except PackageNotFoundError:
        yield Finding(
            "packages", "note", "nbllm runs from a folder that is not installed, so versions are not checked", "pip install -e ."
        )
        return
    declared = [one for one in declared if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = 0
    for requirement in [*declared, *(Requirement(f"{name}>={floor}") for name, floor in FLOORS.items())]:
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            if requirement.name in FLOORS:
                continue
            installed = ""
        if not installed or not requirement.specifier.contains(installed, prereleases=True):
            wrong += 1
            state = f"{requirement.name} {installed} is installed" if installed else f"{requirement.name} is missing"
            yield Finding("packages", "broken", f"{state}; needed is {requirement}", f'pip install "{requirement}"')
    if not wrong:
        yield Finding("packages", "ok", ", ".join(f"{name} {version(name)}" for name in SHOWN))
