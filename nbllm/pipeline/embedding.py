"""Questions into vectors: one embedding for a text, whoever asks for it at the same time, and the last ones kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.core.messages import Request, Rung
from nbllm.errors import BadAnswer, NbllmError
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.stage import looked_at
from nbllm.pipeline.workers import Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

LEXICAL = "lexical"
LOCAL = "local:"
_KEPT = 1_000


class Embedding:
    """Embeds with what the settings name: `lexical`, `local:FOLDER`, or a model id, on the road of every other model call."""

    def __init__(self, helpers: Helpers, workers: Workers, rung_of: Callable[[str], Rung]) -> None:
        self._helpers = helpers
        self._workers = workers
        self._rung_of = rung_of
        self._loading: tuple[str, Future[Any]] | None = None
        self._done: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._under_way: dict[tuple[str, str], asyncio.Future[Vector]] = {}

    async def identity(self, embedder: str) -> str:
        """Return name and version of an embedder: vectors of two are never compared. Raises ConfigurationError, UnknownModel."""
        if embedder == LEXICAL:
            from nbllm.core.semantic.lexical import NAME

            return NAME
        if embedder.startswith(LOCAL):
            name: str = (await self._folder(embedder)).identity
            return name
        rung = self._rung_of(embedder)
        return f"{rung.identity} {rung.model}"

    async def vector(self, request: Request, embedder: str, text: str, *, at_most_s: float) -> Vector:
        """Return the unit vector of a text, shape (d,). Raises NbllmError, TimeoutError after at_most_s.

        Equal texts under way share one embedding, which is on the bill of the call that was first.
        """
        async with asyncio.timeout(at_most_s):
            key = (await self.identity(embedder), text)
            while True:
                found = self._done.get(key)
                if found is not None:
                    self._done.move_to_end(key)
                    return found
                other = self._under_way.get(key)
                if other is None:
                    return await self._lead(key, request, embedder, at_most_s)
                await asyncio.wait([other])
                if not other.cancelled():
                    return other.result()

    async def here(self, embedder: str) -> Callable[[str], Vector] | None:
        """Return an embedder that runs in this process, None for a model elsewhere. Raises ConfigurationError."""
        if embedder == LEXICAL:
            from nbllm.core.semantic.lexical import embed

            return embed
        if embedder.startswith(LOCAL):
            embed_local: Callable[[str], Vector] = (await self._folder(embedder)).embed
            return embed_local
        return None

    async def _lead(self, key: tuple[str, str], request: Request, embedder: str, at_most_s: float) -> Vector:
        promise: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        promise.add_done_callback(looked_at)
        self._under_way[key] = promise
        try:
            vector = _unit(await self._embed(request, embedder, key[1], at_most_s), embedder)
        except NbllmError as exc:
            promise.set_exception(exc)
            raise
        else:
            promise.set_result(vector)
            self._done[key] = vector
            if len(self._done) > _KEPT:
                self._done.popitem(last=False)
            return vector
        finally:
            promise.cancel()  # no effect on one that is settled; else who waits tries for itself
            del self._under_way[key]

    async def _embed(self, request: Request, embedder: str, text: str, at_most_s: float) -> Vector:
        own = await self.here(embedder)
        if own is None:
            first: Vector = (await self._helpers.embed(request, embedder, [text], at_most_s=at_most_s))[0]
            return first
        return own(text) if embedder == LEXICAL else await self._workers.run(partial(own, text))

    async def _folder(self, embedder: str) -> Any:
        folder = embedder.removeprefix(LOCAL)
        loading = self._loading
        if loading is None or loading[0] != folder or (loading[1].done() and (loading[1].cancelled() or loading[1].exception())):
            from nbllm.providers.local_embedder import LocalEmbedder

            loading = self._loading = (folder, self._workers.submit(partial(LocalEmbedder, folder)))
        waiting = asyncio.wrap_future(loading[1])
        waiting.add_done_callback(looked_at)
        return await asyncio.shield(waiting)  # loaded once for all who ask; it goes on when nobody waits any longer


def _unit(vector: Vector, embedder: str) -> Vector:
    """Return the vector with length 1. Raises BadAnswer for one without a direction."""
    import numpy as np

    found = np.asarray(vector, dtype=np.float32)
    size = float(np.sqrt(found @ found)) if found.ndim == 1 and found.size else 0.0
    if not np.isfinite(size) or size < 1e-12:
        raise BadAnswer(f"{embedder} gave a vector of zeros, or none at all, for a question.", hint="Use another embedder.")
    unit: Vector = found / np.float32(size)
    return unit
