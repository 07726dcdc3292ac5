"""One request by way of LiteLLM and its answer, whole or streamed. Works on the module it is handed; imports nothing of litellm."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

from nbllm.core.messages import Chat, Ending
from nbllm.core.ports import Progress, Wire
from nbllm.errors import AnswerTooLarge, AttemptFailed, BadAnswer, NbllmError, Refused, StreamInterrupted
from nbllm.providers.answers import Answer, InBandError, NotAnAnswer, TooLarge, usage_of, vectors_of
from nbllm.providers.failures import ErrorObject, Where, failure
from nbllm.providers.limits import rate_limits
from nbllm.providers.litellm_failures import in_words, translate

CLOSE_S = 0.5
"""How long closing one stream may take."""


class Exchange:
    """One request and its answer."""

    def __init__(self, litellm: Any, wire: Wire, progress: Progress, where: Where) -> None:
        self._litellm = litellm
        self._wire = wire
        self._progress = progress
        self._where = where
        self._answer = Answer(progress, wire.max_answer_bytes)

    async def run(self, arguments: dict[str, Any]) -> Ending:
        """Call LiteLLM and read what it gives; errors become nbllm's."""
        embeds = not isinstance(self._wire.content, Chat)
        self._progress.sent()
        try:
            if embeds:
                return self._vectors(await self._litellm.aembedding(**arguments))
            answer = await self._litellm.acompletion(**arguments)
            self._limits(answer)
            if self._wire.streamed:
                await self._stream(answer)
            else:
                self._answer.take(_plain(answer), part="message")
            return self._end()
        except NbllmError:
            raise
        except InBandError as exc:
            raise failure(500, ErrorObject.read(exc.body), self._where) from exc
        except NotAnAnswer as exc:
            raise self._broken(f"sent something that is no answer: {exc}") from exc
        except TooLarge as exc:
            raise AnswerTooLarge(
                f"{self._where.rung}: {self._where.host} sent more than an answer may hold. The connection was closed.",
                rung=self._where.rung,
                status=200,
                hint="Set max_tokens.",
            ) from exc
        except Exception as exc:
            failed, said = translate(exc, self._where, began=self._answer.began), in_words(exc, self._where)
        raise failed from said

    async def _stream(self, stream: Any) -> None:
        try:
            async for chunk in stream:
                self._answer.take(_plain(chunk), part="delta")
        finally:
            await _close_stream(stream)
        # LiteLLM says "stop" for a stream that merely ended; what the provider said is kept apart.
        if getattr(stream, "received_finish_reason", "") is None:
            self._answer.finish = None

    def _end(self) -> Ending:
        read, where = self._answer, self._where
        if read.finish == "content_filter" or read.refusal:
            raise Refused(f"{where.rung}: the model refused.", rung=where.rung, status=200, hint="Rephrase the prompt.")
        if read.finish is None:
            raise self._broken("ended without a finish reason" if read.began else "sent an answer with nothing in it")
        if not read.has_content and read.finish != "length":
            raise self._broken("sent an answer with no text in it")
        return read.ending(None)

    def _broken(self, what: str) -> AttemptFailed:
        kind = StreamInterrupted if self._answer.began and self._wire.streamed else BadAnswer
        return kind(f"{self._where.rung}: {self._where.host} {what}.", rung=self._where.rung, status=200)

    def _vectors(self, answer: Any) -> Ending:
        body = _plain(answer)
        texts = len(self._wire.content.texts) if not isinstance(self._wire.content, Chat) else 0
        for place, item in enumerate(body.get("data") or ()):
            item.setdefault("index", place)
        return Ending(
            finish_reason="stop",
            usage=usage_of(body.get("usage")),
            model=body.get("model"),
            vectors=vectors_of(body, texts),
        )

    def _limits(self, answer: Any) -> None:
        headers = getattr(answer, "_response_headers", None)
        if isinstance(headers, Mapping) and headers:
            limits = rate_limits(headers, time.time())
            if limits is not None:
                self._progress.limits(limits)


def _plain(answer: Any) -> dict[str, Any]:
    """Return one of LiteLLM's pydantic objects as JSON-able values in OpenAI's shape."""
    body: dict[str, Any] = answer.model_dump(exclude_none=True)
    return body


async def _close_stream(stream: Any) -> None:
    """Close a stream and the connection under it, whichever of them LiteLLM lets one reach."""
    inner = getattr(stream, "completion_stream", None)
    response = getattr(inner, "response", None)
    for thing in (stream, inner, response):
        for name in ("aclose", "close"):
            close = getattr(thing, name, None)
            if close is None:
                continue
            with contextlib.suppress(Exception):  # already closed, or a generator at work: the next one closes it
                closing = close()
                if hasattr(closing, "__await__"):
                    await asyncio.wait_for(closing, CLOSE_S)
            break
