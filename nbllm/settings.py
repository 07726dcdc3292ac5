"""Settings: what can be set, and where each value came from.

Resolution, later wins: defaults < nbllm.toml or [tool.nbllm] in pyproject.toml < NBLLM_* < %llm_config < arguments of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One place that serves models in OpenAI's shape.

    base_url: up to and including /v1. api_key_env: name of the environment variable that holds the key. api_key: the key itself,
    for code only; never shown, never written to a file, never exported. Prices are USD per million tokens. rpm, tpm: requests and
    tokens a minute; max_concurrency: calls at once; context_tokens: the window. identity: what stands for this endpoint in cache
    keys (default: its normalised base_url). json_mode: whether it honours response_format json_schema; None: try and see.
    supports_logprobs: None until seen.
    """

    base_url: str = ""
    api_key_env: str | None = None
    api_key: str | None = field(default=None, repr=False, compare=False)
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    input_usd_per_mtok: Decimal | float | None = None
    output_usd_per_mtok: Decimal | float | None = None
    cached_input_usd_per_mtok: Decimal | float | None = None
    rpm: int | None = None
    tpm: int | None = None
    max_concurrency: int | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    identity: str | None = None
    json_mode: bool | None = None
    supports_logprobs: bool | None = None
    verify_tls: bool = True
