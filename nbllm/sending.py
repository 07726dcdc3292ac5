"""The ways of a client's request from its doors to the road: on the caller's own thread, on its loop, followed as it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nbllm.asking import Prompt, chat_request
from nbllm.background import Job, awaited
from nbllm.books import Books, refuse_on_loop
from nbllm.core.messages import NullSink, Request, Sink
from nbllm.core.reply import Reply
from nbllm.flow_context import cache_mode_here
from nbllm.live import LiveCall
from nbllm.notices import News, say
from nbllm.pipeline.stage import show
from nbllm.watched import way_of


class Sending(Books):
    """The part of Client that sends."""

    _news: News
    _follows_notebook = True
    """Whether calls that say nothing else use the cache as their notebook's panel says. Not where runs are replayed."""

    def _asked(
        self,
        prompt: Prompt,
        options: Mapping[str, Any],
        more: Sequence[object] = (),
        *,
        watched: bool,
        on_interrupt: Literal["restart", "raise"] = "restart",
    ) -> Request:
        """Return the request of a door. Raises InvalidRequest or SchemaError; nothing was sent."""
        given = self._as_here(options)
        return chat_request(prompt, given, self._settings, more, watched=watched, on_interrupt=on_interrupt)

    def _as_here(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a call gives, with how its notebook wants the cache used where the call does not say."""
        if not self._follows_notebook or "cache" in options or (mode := cache_mode_here()) is None:
            return options
        return {**options, "cache": mode}

    async def asend(self, request: Request, sink: Sink | None = None) -> Reply:
        """Send a request that a face has made (nbllm.asking), on the caller's own loop. Cancelling it ends the call upstream.

        sink: where the answer is watched, called on the client's loop; a hit is shown there at once, by the caller. What there is
        to say of the call is in reply.notes and is said nowhere else.
        """
        house = self._open_house()
        opened = house.road.try_hit(request, own_thread=False, together=True)
        if not isinstance(opened, Request):
            await house.asettle(opened.written)
            if sink is not None:
                show(opened.reply, sink)
            return self._news.added(opened.reply)
        watching, host = sink or NullSink(), house.host
        if host.is_here:
            return self._news.added(await house.call(opened, watching))
        return self._news.added(await awaited(Job(host, lambda: house.call(opened, watching))))

    def _wait(self, request: Request) -> Reply:
        house, way = self._open_house(), way_of(request)
        refuse_on_loop(house, "ask")
        opened = house.road.try_hit(request)
        if not isinstance(opened, Request):
            house.settle(opened.written)
            return way.hit(opened.reply)
        return way.wait(house.host, house.call, opened)

    async def _await(self, request: Request) -> Reply:
        house, way = self._open_house(), way_of(request)
        opened = house.road.try_hit(request, own_thread=False)
        if not isinstance(opened, Request):
            await house.asettle(opened.written)
            return way.hit(opened.reply)
        return await way.run(house.host, house.call, opened)

    def _live(self, request: Request, *, own_thread: bool = True) -> LiveCall:
        house, way = self._open_house(), way_of(request)
        if own_thread:
            refuse_on_loop(house, "stream")
        opened = house.road.try_hit(request, own_thread=own_thread)
        if not isinstance(opened, Request):
            if own_thread:
                house.settle(opened.written)
            return LiveCall(None, request, house.call, hit=self._news.added(way.hit(opened.reply)))
        return way.live(house.host, house.call, opened, self._news.added)

    def _said(self, reply: Reply) -> Reply:
        reply = self._news.added(reply)
        if reply.notes:
            say(reply.notes)
        return reply
