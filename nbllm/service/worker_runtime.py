"""The app inside a worker process: opened by the first job, on a loop of its own, opened anew when that failed."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING

from fastapi import FastAPI

from nbllm.errors import NbllmError
from nbllm.service.context import Service
from nbllm.service.remote_hands import RemoteHands

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

_START_S = 60.0
_END_S = 10.0
_LOOK_EVERY_S = 0.5
_log = logging.getLogger("nbllm.service")


class Life:
    """One time that an app is open, on a loop of a thread of its own."""

    def __init__(self, app: FastAPI, over: Event) -> None:
        self.service: Service = app.state.service
        self.pid = os.getpid()
        self._app = app
        self._over = over
        self._born = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        # In the context that the app was made in: options that its module set may hang on it (decimal, numpy).
        run = copy_context().run
        self._thread = threading.Thread(target=lambda: run(asyncio.run, self._live()), name="nbllm-worker", daemon=True)
        self._thread.start()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return its loop as soon as it is open. Raises what kept it from opening, and TimeoutError while it still tries."""
        if not self._born.wait(_START_S):
            raise TimeoutError(f"The app did not start within {_START_S:g} s.")
        if self._failed is not None:
            raise self._failed
        assert self._loop is not None  # noqa: S101 - born
        return self._loop

    @property
    def failed(self) -> bool:
        """Whether it could not be opened, or broke."""
        return self._failed is not None or (self._born.is_set() and not self._thread.is_alive())

    async def _live(self) -> None:
        """Be the service until the process ends."""
        try:
            async with self._app.router.lifespan_context(self._app):
                self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
                self._born.set()
                while not self._end.is_set():
                    if self._over.is_set():
                        await self.service.jobs.stop()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_EVERY_S):
                            await self._end.wait()
        except BaseException as exc:
            if self._born.is_set():
                raise
            self._failed = exc
            self._born.set()

    def close(self) -> None:
        """Put back what still runs, and close everything."""
        if self._loop is None or self._end is None:
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_END_S)


class Runtime:
    """The app's service in one worker process; opened by the first job, so after any fork.

    load: gives the app, anew each time: one that could not be opened (Redis held up for a moment) is closed for good, and the next
    job gets another. over: set when jobs that still run are to be put back, in whichever process they run.
    """

    def __init__(self, app: FastAPI, load: Callable[[], FastAPI], over: Event) -> None:
        self._app: FastAPI | None = app
        self._load = load
        self._over = over
        self._lock = threading.Lock()
        self._life: Life | None = None

    def run_next(self) -> None:
        """Take the next job, if there is one, and see it through. Trouble with Redis is logged: the sweep tells a worker again."""
        try:
            life = self._opened()
            hands: RemoteHands = life.service.jobs
            asyncio.run_coroutine_threadsafe(hands.run_next(), life.loop()).result()
        except NbllmError as exc:
            _log.warning("A job could not be taken: %s", exc.summary)

    def _opened(self) -> Life:
        with self._lock:
            life = self._life
            if life is None or life.pid != os.getpid() or life.failed:
                app, self._app = self._app or self._load(), None
                life = self._life = Life(app, self._over)
            try:
                life.loop()
            finally:
                if life.failed:
                    self._life = None
            return life

    def close(self) -> None:
        """Put back what still runs, and close everything."""
        if self._life is not None and self._life.pid == os.getpid():
            self._life.close()
