"""Texts into vectors, in one place: a learned route, the semantic cache and every rung share one embedding of a text.

What came of it in a call, a failure too, is kept on the call; the last vectors are kept for later ones.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from nbllm.core.messages import Request, Rung
from nbllm.errors import BadAnswer, BudgetError, DeadlineExceeded, NbllmError
from nbllm.pipeline.helpers import Helpers
from nbllm.pipeline.stage import call_of, looked_at
from nbllm.pipeline.workers import Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

Key = tuple[str, str]
"""Name and version of an embedder, and a text."""
LEXICAL = "lexical"
LOCAL = "local:"
_KEPT = 1_000


class AlreadyFailed(NbllmError):
    """The embedder has failed at this text in this call before, and who asked then has said so."""


class Embedding:
    """Embeds with what the settings name: `lexical`, `local:FOLDER`, or a model id, on the road of every other model call."""

    def __init__(self, helpers: Helpers, workers: Workers, rung_of: Callable[[str], Rung]) -> None:
        self._helpers = helpers
        self._workers = workers
        self._rung_of = rung_of
        self._loading: tuple[str, Future[Any]] | None = None
        self._done: OrderedDict[Key, Vector] = OrderedDict()
        self._under_way: dict[Key, asyncio.Future[Vector]] = {}

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
        """Return a text's vector as the embedder gave it, shape (d,). Raises NbllmError; DeadlineExceeded after at_most_s.

        Equal texts under way share one embedding, which is on the bill of the call that was first. Within a call a text is embedded
        once: who asks later, on whichever rung, gets the same vector, or AlreadyFailed at once. Like a classifier's label
        it is kept in the response cache: a notebook that is run again pays for none. A call with cache="off" shares with no other.
        """
        known, asked = call_of(request).embedded, (embedder, text)
        found = known.get(asked)
        if isinstance(found, NbllmError):
            raise AlreadyFailed(found.summary, hint=found.hint) from found
        if found is None:
            try:
                async with asyncio.timeout(at_most_s):
                    found = known[asked] = await self._found(request, embedder, text, at_most_s)
            except NbllmError as exc:
                known[asked] = exc
                raise
            except TimeoutError:
                known[asked] = late = DeadlineExceeded(f"{embedder} gave no embedding within {at_most_s:.3g} s.")
                raise late from None
        return found

    async def unit(self, request: Request, embedder: str, text: str, *, at_most_s: float) -> Vector:
        """Return it with length 1, as similarities need it."""
        vector = await self.vector(request, embedder, text, at_most_s=at_most_s)
        unit: Vector = vector / _length(vector)
        return unit

    async def _found(self, request: Request, embedder: str, text: str, at_most_s: float) -> Vector:
        """Return a vector that is kept, or that another call is about to get; else ask for it."""
        mode = request.options.cache
        if mode == "off":
            return await self._embed(request, embedder, text, at_most_s)
        key = (await self.identity(embedder), text)
        while True:
            found = self._done.get(key)
            if found is not None and mode == "use":
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

    async def _lead(self, key: Key, request: Request, embedder: str, at_most_s: float) -> Vector:
        promise: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        promise.add_done_callback(looked_at)
        self._under_way[key] = promise
        try:
            vector = await self._embed(request, embedder, key[1], at_most_s)
        except (BudgetError, DeadlineExceeded):
            raise  # this call's own money and time: who waits tries for itself
        except NbllmError as exc:
            promise.set_exception(exc)
            raise
        else:
            promise.set_result(vector)
            self._done[key] = vector
            self._done.move_to_end(key)
            if len(self._done) > _KEPT:
                self._done.popitem(last=False)
            return vector
        finally:
            promise.cancel()  # no effect on one that is settled; else who waits tries for itself
            del self._under_way[key]

    async def _embed(self, request: Request, embedder: str, text: str, at_most_s: float) -> Vector:
        own = await self.here(embedder)
        if own is None:
            given = (await self._helpers.embed(request, embedder, [text], at_most_s=at_most_s, cached=True))[0]
        else:
            given = own(text) if embedder == LEXICAL else await self._workers.run(partial(own, text))
        import numpy as np

        found: Vector = np.asarray(given, dtype=np.float32)
        size = float(_length(found)) if found.ndim == 1 and found.size else 0.0
        if not np.isfinite(size) or size < 1e-12:
            raise BadAnswer(f"{embedder} gave a vector of zeros, or none at all, for a question.", hint="Use another embedder.")
        return found

    async def _folder(self, embedder: str) -> Any:
        folder = embedder.removeprefix(LOCAL)
        loading = self._loading
        if loading is None or loading[0] != folder or (loading[1].done() and (loading[1].cancelled() or loading[1].exception())):
            from nbllm.providers.local_embedder import LocalEmbedder

            loading = self._loading = (folder, self._workers.submit(partial(LocalEmbedder, folder)))
        waiting = asyncio.wrap_future(loading[1])
        waiting.add_done_callback(looked_at)
        return await asyncio.shield(waiting)  # loaded once for all who ask; it goes on when nobody waits any longer


def _length(vector: Vector) -> np.float32:
    import numpy as np

    size: np.float32 = np.sqrt(vector @ vector)
    return size
