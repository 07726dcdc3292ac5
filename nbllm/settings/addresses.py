"""Where an endpoint of the settings is, said by the place that a program runs in: NBLLM_ENDPOINTS__VLLM__BASE_URL.

A server's address changes with the machine, and with each start of a local engine; all else about it stays in the settings file.
Only endpoints that the settings define can be moved so. A key that a file names still goes to hosts that NBLLM_KEY_HOSTS allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nbllm.errors import ConfigurationError
from nbllm.settings.endpoint import Endpoint

PREFIX = "NBLLM_ENDPOINTS__"
_SUFFIX = "__BASE_URL"


def address_variable(endpoint_name: str) -> str:
    """Return the variable that holds an endpoint's address: its name in capitals, with _ for what no variable's name may hold."""
    return f"{PREFIX}{re.sub(r'[^A-Z0-9]', '_', endpoint_name.upper())}{_SUFFIX}"


def is_address(variable: str) -> bool:
    """Whether a variable is for an endpoint. Raises ConfigurationError for one that is, and for something else than its address."""
    if not variable.upper().startswith(PREFIX):
        return False
    if not variable.upper().endswith(_SUFFIX) or len(variable) <= len(PREFIX) + len(_SUFFIX):
        raise ConfigurationError(
            f"There is no variable {variable}.", hint=f"Of an endpoint only the address has one: {PREFIX}NAME{_SUFFIX}."
        )
    return True


def move_endpoints(values: dict[str, Any], origins: dict[str, str], environ: Mapping[str, str], notes: list[str]) -> None:
    """Give endpoints among the flat values the addresses that variables hold; empty ones count as unset.

    A variable for no endpoint of these settings is noted. Raises ConfigurationError for a variable whose text is no address, or
    that two endpoints would have.
    """
    for variable in sorted(v for v in environ if is_address(v)):
        text = environ[variable].strip()
        if not text:
            continue
        named = [n for n in values if n.startswith("endpoints.") and address_variable(n.partition(".")[2]) == variable.upper()]
        meant = [name for name in named if isinstance(values[name], Endpoint)]
        if len(meant) > 1:
            both = " and ".join(name.partition(".")[2] for name in meant)
            raise ConfigurationError(f"{variable} could be the address of {both}.", hint="Rename one of these endpoints.")
        if not meant:
            notes.append(f"{variable} is the address of no endpoint of the settings and is ignored.")
            continue
        (name,) = meant
        before: Endpoint = values[name]
        try:
            values[name] = replace(before, base_url=text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{variable}: {error.summary}", hint=error.hint) from None
        object.__setattr__(values[name], "settings_file", before.settings_file)  # what else is in it is the file's word still
        origins[name] = f"{origins.get(name, 'default')}, base_url: {variable}"
