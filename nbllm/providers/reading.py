"""Reading one HTTP answer to its end: whole or streamed, an error, or something that is no answer at all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from nbllm.core.json_text import loads
from nbllm.core.messages import Chat, Ending
from nbllm.core.ports import Progress, Wire
from nbllm.errors import AnswerTooLarge, AttemptFailed, BadAnswer, ConnectionFailed, Refused, StreamInterrupted
from nbllm.providers.answers import Answer, InBandError, NotAnAnswer, TooLarge, usage_of, vectors_of
from nbllm.providers.failures import ErrorObject, Where, failure, http_failure, shorten
from nbllm.providers.sse import SseParser
from nbllm.providers.transport_failures import FOREIGN, harmless, transport_failure

_ERROR_BODY_BYTES = 65_536
_ERROR_BODY_S = 2.0
"""A server that answers 500 and then falls silent is still a server that answered 500."""
_LAST_BYTES_S = 0.02
"""After [DONE] the end of the body follows at once, and the connection can be used again; if it does not, it is closed."""
_FRAMING = 16
"""A stream may be this many times larger than the answer in it: each token travels in some 200 bytes of JSON."""


class Reading:
    """Reads the body of one 200."""

    __slots__ = ("_answer", "_response", "_streamed", "_where", "_wire")

    def __init__(self, wire: Wire, progress: Progress, response: aiohttp.ClientResponse, where: Where) -> None:
        self._wire = wire
        self._response = response
        self._where = where
        self._answer = Answer(progress, wire.max_answer_bytes)
        # The server decides: some stream though a whole answer was asked for, some do not stream at all.
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._streamed = kind == "text/event-stream" or (wire.streamed and kind not in {"application/json", "text/html"})

    async def read(self) -> Ending:
        """Return the ending. What it means that the bytes stop or make no sense depends on whether the answer had begun."""
        try:
            if self._streamed:
                await self._stream()
            else:
                ending = await self._whole()
                if ending is not None:
                    return ending
        except FOREIGN as exc:
            broken = transport_failure(exc, self._where)
            if not self._answer.finish:
                raise self._broken(broken.summary, ConnectionFailed) from harmless(exc)
        except InBandError as exc:
            raise self._in_band(exc) from exc
        except NotAnAnswer as exc:
            raise self._broken(
                f"{self._where.rung}: {self._where.host} sent something that is no answer: {exc}.", BadAnswer
            ) from exc
        except (TooLarge, AnswerTooLarge) as exc:
            raise self._too_large() from exc
        return self._end()

    async def _stream(self) -> None:
        parser = SseParser(self._wire.max_line_bytes)
        readany = self._response.content.readany
        take = self._answer.take
        left = self._wire.max_answer_bytes * _FRAMING
        while chunk := await readany():
            left -= len(chunk)
            if left < 0:
                raise TooLarge
            for data, name in parser.feed(chunk):
                if data == "[DONE]":
                    await self._last_bytes()
                    return
                if data:
                    take(_event(data, name), part="delta")
        for data, name in parser.finish():
            if data and data != "[DONE]":
                take(_event(data, name), part="delta")

    async def _last_bytes(self) -> None:
        content = self._response.content
        if not content.is_eof():
            try:
                async with asyncio.timeout(_LAST_BYTES_S):
                    while await content.readany():
                        pass
            except FOREIGN:
                pass  # the answer is complete; only the connection is lost

    async def _whole(self) -> Ending | None:
        """Read a whole answer; return the ending of an embedding, None for a chat (its ending is made of what was taken)."""
        data = await self._bytes()
        try:
            body = loads(data)
        except (ValueError, RecursionError):
            if not data.strip():
                raise NotAnAnswer("the body is empty") from None
            raise NotAnAnswer("the body is HTML" if data.lstrip()[:1] == b"<" else "the body is no JSON") from None
        if isinstance(self._wire.content, Chat):
            self._answer.take(body, part="message")
            return None
        vectors = vectors_of(body, len(self._wire.content.texts))
        usage, model, name = usage_of(body.get("usage")), body.get("model"), body.get("id")
        return Ending(
            finish_reason="stop",
            usage=usage,
            model=model if isinstance(model, str) else None,
            request_id=self._request_id() or (name if isinstance(name, str) else None),
            vectors=vectors,
        )

    async def _bytes(self) -> bytes:
        limit = self._wire.max_answer_bytes
        if (self._response.content_length or 0) > limit:
            raise TooLarge
        readany = self._response.content.readany
        pieces: list[bytes] = []
        size = 0
        while piece := await readany():
            size += len(piece)
            if size > limit:
                raise TooLarge
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end(self) -> Ending:
        answer, where = self._answer, self._where
        if answer.finish == "content_filter" or answer.refusal:
            said = shorten(answer.refusal, where.secrets)
            raise Refused(
                f"{where.rung}: the model refused" + (f": {said}" if said else " (finish_reason content_filter)."),
                rung=where.rung,
                status=200,
                hint="Rephrase the prompt, or use another model.",
            )
        if answer.finish is None:
            what = "ended without a finish_reason" if answer.began else "sent an answer with nothing in it"
            raise self._broken(f"{where.rung}: {where.host} {what}.", BadAnswer)
        if not answer.has_content and answer.finish != "length":
            what = "only reasoning, no text" if answer.began else "nothing"
            text = f"{where.rung}: {where.host} sent an answer with {what} in it (finish_reason {answer.finish})."
            raise self._broken(text, BadAnswer)
        return answer.ending(self._request_id())

    def _request_id(self) -> str | None:
        return self._response.headers.get("x-request-id")

    def _broken(self, text: str, before_it_began: type[AttemptFailed]) -> AttemptFailed:
        """Return the error for an answer that stopped: interrupted once a piece of a stream was told."""
        kind = StreamInterrupted if self._answer.began and self._streamed else before_it_began
        return kind(text, rung=self._where.rung, status=200)

    def _in_band(self, exc: InBandError) -> AttemptFailed:
        error = ErrorObject.read(exc.body)
        if self._answer.began and self._streamed:
            said = shorten(error.message, self._where.secrets)
            return self._broken(f"{self._where.rung}: {self._where.host} reported an error within the stream: {said}", BadAnswer)
        return failure(error.status or 500, error, self._where)

    def _too_large(self) -> AnswerTooLarge:
        limit = f"{self._wire.max_answer_bytes / 1e6:.1f} MB"
        line = f"{self._wire.max_line_bytes / 1e6:.1f} MB"
        return AnswerTooLarge(
            f"{self._where.rung}: {self._where.host} sent more than an answer may hold ({limit}; {line} on one line of a stream)."
            " The connection was closed.",
            rung=self._where.rung,
            status=200,
            hint="Set max_tokens, or check what the server sends."
            if isinstance(self._wire.content, Chat)
            else "Embed fewer texts at once.",
        )


def _event(data: str, name: str) -> Any:
    try:
        body = loads(data)
    except (ValueError, RecursionError):
        if name == "error":
            raise InBandError({"error": data}) from None
        raise NotAnAnswer("a line of the stream is no JSON") from None
    if name == "error" and not (isinstance(body, dict) and body.get("error")):
        raise InBandError({"error": body})
    return body


async def refusal(response: aiohttp.ClientResponse, where: Where) -> AttemptFailed:
    """Read as much of an error's body as is worth it, and return the error."""
    body = b""
    if not 300 <= response.status < 400:
        try:
            async with asyncio.timeout(_ERROR_BODY_S):
                while len(body) < _ERROR_BODY_BYTES and (piece := await response.content.readany()):
                    body += piece
        except FOREIGN:
            pass  # the status says enough
    return http_failure(response.status, response.headers, body, where, now_unix_s=time.time())


def abort(transport: asyncio.Transport | None) -> None:
    """Close a connection now, whatever its buffers hold. None is no connection."""
    if transport is not None:
        transport.abort()


def cut(response: aiohttp.ClientResponse) -> None:
    """Close the connection now, what is left in its buffers included; does nothing when the body was read to its end."""
    connection = response.connection
    if connection is not None:
        abort(connection.transport)
        response.close()
