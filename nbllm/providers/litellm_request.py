"""What LiteLLM is called with: arguments, key and address. Checked before litellm is imported, so nothing is sent for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from nbllm.core.messages import Chat, Rung
from nbllm.core.ports import Wire
from nbllm.errors import AttemptFailed, AuthenticationFailed, ConfigurationError, InvalidRequest
from nbllm.providers.hosts import host_of, key_for
from nbllm.providers.litellm_hosts import HOSTS, OWN_CREDENTIALS, host_for
from nbllm.providers.wire import request_body
from nbllm.redaction import is_secret_name
from nbllm.settings import Endpoint

RETRIES_ANYWAY = frozenset(
    {
        "ai21",
        "ai21_chat",
        "baseten",
        "codestral",
        "deepinfra",
        "featherless_ai",
        "hyperbolic",
        "inception",
        "morph",
        "nscale",
        "nvidia_nim",
        "sambanova",
        "text-completion-inception",
        "v0",
        "zai",
    }
)
"""Providers for which LiteLLM 1.106 loses max_retries=0 on its way to the OpenAI SDK, which then sends three requests."""
TIMEOUT_STEPS_S = (5.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""LiteLLM keeps a client, and its sockets, for each timeout that it was ever given: so it is given one of a few. Ours is exact."""
_CONTROL = frozenset(
    """api_key api_base base_url model_list fallbacks context_window_fallback_dict num_retries max_retries retry_policy timeout
    request_timeout stream_timeout custom_llm_provider mock_response mock_tool_calls mock_timeout caching cache callbacks
    success_callback failure_callback logger_fn client shared_session drop_params additional_drop_params allowed_openai_params
    api_type acompletion aembedding hf_model_name deployment_id litellm_params ssl_verify""".split()  # noqa: SIM905  a table of names
)
"""What `extra` may not hold: it would change where a request goes, how often, or who reads it."""


def key_to_pass(rung: Rung, environ: Mapping[str, str]) -> str | None:
    """Return the key to pass, None where the provider has credentials of another kind or LiteLLM knows its variable."""
    name, endpoint = rung.endpoint_name, rung.endpoint
    if endpoint.base_url:
        try:
            return key_for(name, endpoint, environ)
        except AttemptFailed as exc:
            exc.rung = rung.id
            if name in HOSTS:
                raise
            return None
    base_env = host_for(name).base_env
    if base_env:
        raise ConfigurationError(
            f"{rung.id}: {name} has no address of its own, and {base_env} is not set. Nothing was sent.",
            hint=f"Set {base_env} to your resource's address.",
        )
    envs = host_for(name).key_envs
    key = endpoint.api_key or next((value for env in envs if (value := environ.get(env, "").strip())), None)
    if key is None and envs and name in HOSTS:
        raise AuthenticationFailed(
            f"{rung.id} needs a key and the environment variable {envs[0]} is not set. Nothing was sent.",
            rung=rung.id,
            hint=f"Set {envs[0]} (in a notebook: import os, getpass; os.environ[{envs[0]!r}] = getpass.getpass()).",
        )
    return key


def arguments_for(wire: Wire, *, schema_in_prompt: bool = False) -> dict[str, Any]:
    """Return what LiteLLM is called with, all but the key. Checked and written like OpenAI's wire, then read again: a copy."""
    plain = replace(wire.rung, endpoint=Endpoint(base_url="http://localhost/v1", json_mode=wire.rung.endpoint.json_mode))
    body: dict[str, Any] = json.loads(request_body(replace(wire, rung=plain), schema_in_prompt=schema_in_prompt))
    for name in wire.content.extra:
        if name in _CONTROL or is_secret_name(name):
            raise InvalidRequest(
                f"extra may not hold {name!r}: it decides where a request goes or how. Nothing was sent.",
                hint="Keys and addresses belong to the endpoint; retries, timeouts and fallbacks have options of their own.",
            )
    rung = wire.rung
    body |= {
        "model": f"{rung.endpoint_name}/{rung.model}",
        "timeout": next((step for step in TIMEOUT_STEPS_S if step >= wire.deadline_s), TIMEOUT_STEPS_S[-1]),
        "num_retries": 0,
        "max_retries": 0,
        "drop_params": False,
    }
    if rung.endpoint_name in RETRIES_ANYWAY and isinstance(wire.content, Chat):
        body["allowed_openai_params"] = ["max_retries"]
    base = rung.endpoint.base_url
    embed_base = host_for(rung.endpoint_name).embed_base
    if base:
        body["api_base"] = embed_base if embed_base and not isinstance(wire.content, Chat) else base
    if rung.endpoint.headers:
        body["extra_headers"] = {**dict(rung.endpoint.headers), **(body.get("extra_headers") or {})}
    return body


def check_environment(litellm: Any, rung: Rung) -> None:
    """Raise AuthenticationFailed when LiteLLM itself knows that a key is missing for a provider without a row in our table."""
    if rung.endpoint_name in OWN_CREDENTIALS or rung.endpoint_name in HOSTS:
        return
    try:
        found = litellm.validate_environment(f"{rung.endpoint_name}/{rung.model}")
    except Exception:  # a look ahead only: what is really wrong is said by the call itself
        return
    missing = found.get("missing_keys") if isinstance(found, dict) else None
    if missing and not found.get("keys_in_environment"):
        raise AuthenticationFailed(
            f"{rung.id} needs {' and '.join(missing)}, and it is not set. Nothing was sent.",
            rung=rung.id,
            hint="Set the variable to the provider's key and call again.",
        )


def shown_host(endpoint: Endpoint) -> str:
    """Return the host as messages name it."""
    return host_of(endpoint.base_url) if endpoint.base_url else "the provider"
