"""Servers that somebody else started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import urlsplit

from nbllm.engines.catalog import ENGINES, EngineKind
from nbllm.engines.door import Door, NoAnswer
from nbllm.engines.engine import Engine, check_name, refuse_twice, registered
from nbllm.engines.ready import ASK_S, Limit, first_token, model_names
from nbllm.engines.watch import Rhythm, Watch
from nbllm.errors import EngineFailed
from nbllm.providers.hosts import key_for
from nbllm.settings import Endpoint


def attach(
    base_url: str,
    *,
    name: str = "attached",
    model: str | None = None,
    api_key_env: str | None = None,
    usd_per_hour: Decimal | float | None = None,
    environ: Mapping[str, str] = os.environ,
    rhythm: Rhythm | None = None,
) -> Engine:
    """Take a server that already runs, of any kind that speaks OpenAI's wire, once it has completed one token.

    base_url: up to and including /v1. model: which of its models, by default its first. api_key_env: variable with its key. It is
    not stopped by us, and looked at when its status is asked for; rhythm: how. Raises EngineFailed, EngineWedged, and
    ConfigurationError for an address that is none.
    """
    check_name(name)
    refuse_twice(name)
    endpoint = Endpoint(base_url=base_url, api_key_env=api_key_env)
    door = Door(endpoint.base_url, key_for(name, endpoint, environ))
    kind = EngineKind(name="attach", title=f"The server at {urlsplit(base_url).netloc}", endpoint=name, install="")
    try:
        answer = door.ask(door.v1("/models"), limit_s=ASK_S)
    except NoAnswer as error:
        raise EngineFailed(
            f"{kind.title} does not answer: {error}.", reason="silent", hint="Is it running, and is /v1 part of the address?"
        ) from None
    names = model_names(answer)
    if answer.status != 200 or not names:
        raise EngineFailed(f"{kind.title} lists no models: {answer.status} {answer.message()}", reason="no_such_model")
    if model is not None and model not in names:
        raise EngineFailed(f"{kind.title} has no model {model!r}; it has {', '.join(names[:8])}.", reason="no_such_model")
    usd = None if usd_per_hour is None else Decimal(str(usd_per_hour))
    loads_on_demand = _is_ollama(door)
    limit_s = ENGINES["ollama"].first_answer_s if loads_on_demand else kind.first_answer_s
    asked = first_token(door, kind, model or names[0], None, Limit(limit_s))
    watch = Watch(door, asked, None, rhythm or Rhythm(), asks=not loads_on_demand)
    return registered(Engine(name, kind.title, endpoint, asked, watch, usd_per_hour=usd))


def _is_ollama(door: Door) -> bool:
    """Whether it is a server that loads a model with the first question, and unloads it when nobody asks for a while."""
    try:
        answer = door.ask(door.root(ENGINES["ollama"].health), limit_s=ASK_S)
    except NoAnswer:
        return False
    return answer.status == 200 and "version" in answer.json()
