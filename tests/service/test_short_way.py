"""The short way of requests that are asked most, and their ids."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nbllm.service import create_app
from nbllm.service.heads import new_id
from tests.service.raw import ask
from tests.service.running import running, write_settings


class _Marks:
    """A middleware of a user's: marks each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-mark", b"here")]
            await send(message)

        await self._app(scope, receive, marked)


@pytest.mark.parametrize("path", ["/v1/models", "/health"])
def test_middleware_of_users_stands_before_everything(tmp_path: Path, path: str) -> None:
    """What is asked most takes a short way through the app, and no short way leads past middleware that somebody added."""
    app = create_app(settings=write_settings(tmp_path))
    with running(app) as plain:
        assert "x-mark" not in ask(plain, path, headers=plain.headers).headers
    app = create_app(settings=write_settings(tmp_path))
    app.add_middleware(_Marks)
    with running(app) as marked:
        answer = ask(marked, path, headers=marked.headers)
        assert (answer.status, answer.headers["x-mark"]) == (200, "here")


def test_ids_do_not_repeat_whatever_a_flow_does_to_chance() -> None:
    """A flow that seeds Python's own source of chance does not make two requests share an id."""
    made = set()
    for _ in range(100):
        random.seed(7)
        made |= {new_id(), new_id()}
    assert len(made) == 200
    assert all(len(one) == 32 for one in made)
