"""A client that replays: where a route's choice hangs on more than the request, the model that was recorded answers again."""

from __future__ import annotations

from msgspec.structs import replace

from nbllm.client import Client
from nbllm.core.messages import Request
from nbllm.core.reply import Reply
from nbllm.core.routing_candidates import left_open
from nbllm.core.routing_facts import Facts, facts_of
from nbllm.live import LiveCall
from nbllm.settings.strategies import Names


class Following(Client):
    """Rules and hashes of the request choose anew. What a helper said, an answer's log probabilities, users, prices, times and
    limits cannot be replayed: of the models that these choose from, the recorded one is asked.

    A model that was recorded and that the route cannot choose is not followed: then the route chooses, and the difference shows.
    """

    _follows_notebook = False

    def _recorded_rung(self, request: Request) -> str | None:
        """Return the model that answered when this was recorded, None where nothing is known."""
        raise NotImplementedError

    def _open_choice(self, name: str, facts: Facts) -> Names | None:
        """Return the models among which a route's choice is not the request's alone, None for none."""
        return left_open(name, self.settings.routes, facts)

    def _followed(self, request: Request) -> tuple[Request, str]:
        """Return the request as it is asked, and the route whose recorded choice that follows, "" for none."""
        names = request.models or ((self.settings.model,) if self.settings.model else self.settings.ladder)
        if len(names) != 1 or names[0] not in self.settings.routes:
            return request, ""
        models = self._open_choice(names[0], facts_of(request.content, request.options))
        rung = self._recorded_rung(request)
        if models is None or rung not in models:
            return request, ""
        return replace(request, models=(rung,)), names[0]

    def _wait(self, request: Request) -> Reply:
        return super()._wait(self._followed(request)[0])

    async def _await(self, request: Request) -> Reply:
        return await super()._await(self._followed(request)[0])

    def _live(self, request: Request, *, own_thread: bool = True) -> LiveCall:
        return super()._live(self._followed(request)[0], own_thread=own_thread)
