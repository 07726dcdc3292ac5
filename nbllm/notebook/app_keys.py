"""The keys of a running app: those of servers that this session has, and where they are; one of a tier for the time of a test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from IPython.core.error import UsageError

from nbllm.notebook.running_app import App
from nbllm.settings.addresses import address_variable
from nbllm.settings.suggest import did_you_mean

_KEY_SEEN_S = 0.3
"""A running service looks for new keys every quarter of a second."""


def engine_variables(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of an app for servers of this session: their keys, and where they are now if the settings say that
    they are on this machine. An address that the environment has already stays.
    """
    from nbllm.engines import running as engines
    from nbllm.service.configuration import is_loopback, load_service

    found: dict[str, str] = {}
    if not (folder / "settings.toml").is_file():
        return found
    settings, _ = load_service(folder / "settings.toml")
    for engine in engines():
        theirs = settings.endpoints.get(engine.name)
        if theirs is None:
            continue
        if theirs.api_key_env and engine.endpoint.api_key:
            found[theirs.api_key_env] = engine.endpoint.api_key
        variable, host = address_variable(engine.name), urlsplit(theirs.base_url).hostname or ""
        if is_loopback(host) and theirs.base_url != engine.endpoint.base_url and not environ.get(variable):
            found[variable] = engine.endpoint.base_url
    return found


@contextmanager
def key_of_tier(app: App, tier: str) -> Iterator[str]:
    """Yield a key of a tier, for the time of a test."""
    from nbllm.service.configuration import load_service
    from nbllm.service.keys import open_keys

    _, config = load_service(app.folder / "settings.toml", {"NBLLM_HOME": str(app.home)})
    if tier not in config.tiers:
        raise UsageError(f"--tier {tier}: {app.name} has no such tier. {did_you_mean(tier, config.tiers)}")
    keys = open_keys(app.home, config.keys_file, {}, folder=app.folder)
    text, row = keys.make(tier, note="%serve load")
    try:
        time.sleep(_KEY_SEEN_S)
        yield text
    finally:
        keys.revoke(row.id)
