"""Helper calls: embedding, judging, verifying and classifying for a request. Model calls too, so they travel the same inner road.

retry ... attempt see them like any other request: breakers, limits and budgets hold, their rows carry the parent's call_id and
what they were for, and what they cost is in the parent's cost. They end with the parent's deadline, or earlier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from nbllm.core.messages import Call, Chat, Content, Embed, Message, NullSink, Options, Request, Rung
from nbllm.core.reply import Reply
from nbllm.errors import BadAnswer, DeadlineExceeded
from nbllm.pipeline.stage import Clock, Stage, call_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Purpose = Literal["embed", "judge", "verify", "classify"]


class Helpers:
    """Asks models on behalf of a request.

    Everything here raises NbllmError when there is no answer, of whatever kind: a budget that refuses, an endpoint that fails, an
    unknown model, DeadlineExceeded after at_most_s. Who asks catches that, says so once in a note and goes on without.
    """

    def __init__(self, bare: Stage, shared: Stage, rung_of: Callable[[str], Rung], clock: Clock) -> None:
        self._bare = bare
        self._shared = shared
        self._rung_of = rung_of
        self._clock = clock

    async def embed(
        self, request: Request, model_id: str, texts: Sequence[str], *, at_most_s: float | None = None, cached: bool = False
    ) -> NDArray[np.float32]:
        """Return the texts' vectors as float32, shape (len(texts), dimensions), each number finite.

        cached: look in the response cache first, share the run of the same texts under way, and keep the vectors, as far as the
        request's own cache mode allows.
        """
        content = Embed(texts=tuple(texts), partition=request.content.partition)
        reply = await self._run(request, model_id, content, "embed", at_most_s, cached=cached, keep_if=_has_directions)
        import numpy as np

        vectors: Any = reply.vectors
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(content.texts) or not np.isfinite(vectors).all():
            shape = getattr(vectors, "shape", "no")
            raise BadAnswer(f"{model_id} gave {shape} vectors for {len(content.texts)} texts, or some that are no numbers.")
        found: NDArray[np.float32] = vectors
        return found

    async def ask(
        self,
        request: Request,
        model_id: str,
        messages: Sequence[Message],
        *,
        purpose: Purpose,
        at_most_s: float | None = None,
        cached: bool = False,
        keep_if: Callable[[Reply], bool] | None = None,
        **content: Any,
    ) -> Reply:
        """Return a model's whole answer to messages of our own.

        cached: as above; keep_if: only answers of which this is true. content: further fields of Chat, such as max_tokens. An
        answer that a limit on tokens cut is returned as it is (`truncated`).
        """
        chat = Chat(messages=tuple(messages), partition=request.content.partition, **content)
        return await self._run(request, model_id, chat, purpose, at_most_s, cached=cached, keep_if=keep_if)

    async def _run(
        self,
        request: Request,
        model_id: str,
        content: Content,
        purpose: Purpose,
        at_most_s: float | None,
        *,
        cached: bool,
        keep_if: Callable[[Reply], bool] | None = None,
    ) -> Reply:
        rung, call, now_s = self._rung_of(model_id), call_of(request), self._clock.now_s()
        ends_at_s = call.deadline_at_s if at_most_s is None else min(call.deadline_at_s, now_s + at_most_s)
        own = _own(call, ends_at_s)
        helping = Request(
            content=content,
            options=_options(request.options, ends_at_s - now_s, retries=0 if purpose == "embed" else request.options.retries),
            rungs=(rung,),
            rung=rung,
            purpose=purpose,
            keep_if=keep_if,
            call=own,
        )
        try:
            async with asyncio.timeout_at(ends_at_s) as scope:
                return await (self._shared if cached else self._bare)(helping, NullSink())
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"{rung.id} did not {purpose} within {ends_at_s - now_s:.3g} s.") from exc
        finally:
            call.attempts.extend(own.attempts)


def _has_directions(reply: Reply) -> bool:
    """Whether each vector may be kept: zeros, and what is no number, would be a miss for ever."""
    import numpy as np

    vectors = reply.vectors
    return vectors is not None and bool(np.isfinite(vectors).all() and np.any(vectors, axis=-1).all())


def _own(call: Call, ends_at_s: float) -> Call:
    """Return a call of the helper's own on the parent's row: what it received, or waited, is not the parent's answer.

    Notes are the parent's: who asked wants to hear of a budget that is nearly used up, whatever used it.
    """
    return replace(
        call,
        attempts=[],
        attempts_before=call.next_number - 1,
        deadline_at_s=ends_at_s,
        key=None,
        looked_up=False,
        partial=None,
        may_store=None,
        waited_s=0.0,
        reserved_usd=None,
        lowered=None,
    )


def _options(parent: Options, left_s: float, *, retries: int) -> Options:
    """Return a helper's options: nobody watches it, and it has the parent's patience; who pays is on the call."""
    return Options(
        retries=retries,
        cache=parent.cache,
        deadline_s=max(0.0, left_s),
        feature=parent.feature,
        user=parent.user,
        budget_usd=parent.budget_usd,
        scopes=parent.scopes,
        on_interrupt="restart",
    )
