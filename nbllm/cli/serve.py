"""`nbllm serve` and `nbllm keys`: run an exported app; who may call it."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from nbllm.cli.paper import Paper, age
from nbllm.errors import ConfigurationError, InvalidRequest
from nbllm.settings.suggest import did_you_mean

_INSTALL = 'pip install "nbllm[service]"'


def serve(given: argparse.Namespace) -> int:
    """Serve the app of a folder until it is told to end."""
    _needs("fastapi", "uvicorn", "limits", "prometheus_client", "structlog", "httptools")
    folder = _folder(given.folder)
    shown = given.folder
    from nbllm.service.flow_prints import flows_print_into_the_log
    from nbllm.service.loading import load_app
    from nbllm.service.serving import serve as serve_app

    with flows_print_into_the_log():  # before the app's modules are loaded: some keep the stream that they find
        app = load_app(folder)
        paper = Paper(sys.stderr)
        # The key is shown once, to who started the service: what is redacted everywhere else is meant for them.
        serve_app(
            app,
            host=given.host,
            port=given.port,
            say=lambda line: print(line, file=paper.out, flush=True),
            keys_command=f"nbllm keys make {shown}",
            show_key=paper.out.isatty(),
        )
    return 0


def keys(given: argparse.Namespace) -> int:
    """Make, list or revoke keys of the app in a folder."""
    from nbllm.service.configuration import load_service
    from nbllm.service.keys import former_keys, open_keys

    folder = _folder(given.folder)
    settings, config = load_service(folder / "settings.toml")
    store, paper = open_keys(settings.home, config.keys_file, folder=folder), Paper()
    if given.action == "make":
        if given.tier not in config.tiers:
            raise InvalidRequest(f"There is no tier {given.tier!r} in the settings.", hint=did_you_mean(given.tier, config.tiers))
        text, key = store.make(given.tier, note=given.note)
        print(text, file=paper.out)  # not through the redactor: this is where it is shown, once
        print(f"nbllm: key {key.id} of tier {key.tier}; it is shown once and kept nowhere.", file=sys.stderr)
    elif given.action == "revoke":
        key = store.revoke(given.key_id.removeprefix("nbllm_")[:8] if given.key_id.startswith("nbllm_") else given.key_id)
        paper.line(f"  Key {key.id} of tier {key.tier} is revoked; running services know within a second.")
    else:
        tiers = {k.tier: k.tier if k.tier in config.tiers else f"{k.tier} (not in the settings: refused)" for k in store.list()}
        rows = [(k.id, tiers[k.tier], age(time.time() - k.made_at) if k.made_at else "", k.note) for k in store.list()]
        if rows:
            paper.table(("id", "tier", "#age", "note"), rows)
        paper.line(f"  keys: {store.counted()}")
        if store.former is not None:
            paper.line(f"  {former_keys(store.former)}")
    return 0


def _folder(name: str) -> Path:
    """Return an app's folder. Raises ConfigurationError for what is none."""
    folder = Path(name).absolute()
    if not (folder / "settings.toml").is_file():
        raise ConfigurationError(
            f"{folder} holds no app: there is no settings.toml.", hint="Export one: nbllm export NOTEBOOK --flow NAME --out DIR"
        )
    return folder


def _needs(*modules: str) -> None:
    """Say which package is missing, and how it is had."""
    for module in modules:
        if module == "httptools" and sys.platform == "win32":
            continue
        try:
            importlib.import_module(module)
        except ImportError as exc:
            raise ConfigurationError(f"A service needs {exc.name or module}, which is not installed.", hint=_INSTALL) from None
