"""CallOptions: the keywords of `ask` and its twins as types, for editors and type checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypedDict


class EmbedOptions(TypedDict, total=False):
    """The options of CALL_OPTIONS that make sense for embeddings too. See CallOptions."""

    model: str | Sequence[str] | None
    extra: Mapping[str, Any]
    retries: int
    cache: Literal["use", "refresh", "off"]
    ttl_s: float | None
    stale_ok_s: float | None
    sample: int
    partition: str
    deadline_s: float
    ttft_s: float | None
    idle_s: float | None
    attempt_s: float | None
    feature: str | None
    user: str | None
    budget_usd: Decimal | float | str | None
    tags: str | Sequence[str]


class CallOptions(EmbedOptions, total=False):
    """Every option of CALL_OPTIONS, with the type that it may be given as; what each does and its default is said there.

    Unpacked where a door takes them: `def ask(prompt, **options: Unpack[CallOptions])`. What is left out has the settings' value.
    """

    system: str | None
    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    tools: Sequence[Mapping[str, Any]] | None
    response_format: Mapping[str, Any] | None
    logprobs: bool | int | None
    schema: Any
    check: Callable[[Any], object] | None
    repairs: int
    static: str | None
    semantic: bool | None
    on_interrupt: Literal["restart", "raise"] | None
