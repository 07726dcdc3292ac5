"""Where a model is told its JSON Schema: in response_format, or in the prompt once its endpoint has refused that."""

from __future__ import annotations

import re

from nbllm.core.messages import Chat, Rung
from nbllm.core.ports import Wire
from nbllm.errors import BadParameter, SchemaModeRefused

_ABOUT_SCHEMAS = re.compile(r"response[_ ]format|json[_ ]schema|guided|grammar|structured[_ ]outputs?", re.IGNORECASE)
"""What refusals of it name: OpenAI, Groq, DeepSeek, llama.cpp, LM Studio (response_format, json_schema), vLLM (guided, grammar)."""


class SchemaModes:
    """What one provider has learned of its models. Kept while the process lives; a model that takes schemas is never noted."""

    def __init__(self) -> None:
        self._refused: set[tuple[str, str]] = set()

    def in_prompt(self, rung: Rung) -> bool:
        """Whether this model's schemas go into the prompt."""
        return rung.endpoint.json_mode is None and (rung.identity, rung.model) in self._refused

    def refused(self, wire: Wire, error: BadParameter, *, in_prompt: bool) -> BadParameter:
        """Return the error for a refused request; one that is about a schema of ours is noted and becomes SchemaModeRefused.

        in_prompt: how this request was sent; others may have been refused meanwhile.
        """
        content, rung = wire.content, wire.rung
        ours = isinstance(content, Chat) and content.json_schema is not None and content.response_format is None
        if in_prompt or not ours or rung.endpoint.json_mode is not None:
            return error
        if not _ABOUT_SCHEMAS.search(error.parameter or error.summary):
            return error
        self._refused.add((rung.identity, rung.model))
        return SchemaModeRefused(
            error.summary,
            parameter=error.parameter,
            rung=error.rung,
            status=error.status,
            partial=error.partial,
            hint="Set json_mode=False on the endpoint, so that schemas go into the prompt from the start.",
        )
