"""What runs jobs where replicas share a Redis: `celery --app nbllm.service.worker worker`, in the app's folder or with NBLLM_APP.

A message says that there is a job, and is trusted with nothing: whoever gets one takes the next job from the queue, under a lease
that it renews. A worker that is killed leaves a lease that lapses; the sweep, here and in every replica, puts its job back. One
that is told to end (SIGTERM) takes nothing new, and what has not finished after the settings' grace_s goes back into the queue.
Each process of a prefork pool opens its own client, sockets and files, after the fork.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_shutdown, worker_ready, worker_shutdown, worker_shutting_down
from fastapi import FastAPI

from nbllm.errors import ConfigurationError, NbllmError
from nbllm.service.celery_app import TASK, announcing, celery_app
from nbllm.service.context import Service
from nbllm.service.loading import load_app
from nbllm.service.redis_jobs import RedisJobs
from nbllm.service.remote_hands import RemoteHands
from nbllm.service.sharing import VARIABLE, namespace_of
from nbllm.storage.redis_link import Link

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

SWEEP_EVERY_S = 5.0
_START_S = 60.0
_END_S = 10.0
_LOOK_EVERY_S = 0.5
_log = logging.getLogger("nbllm.service")


class Runtime:
    """The app's service in one worker process, on a loop of its own thread; opened by the first job, so after any fork.

    over: set when jobs that still run are to be put back, in whichever process they run.
    """

    def __init__(self, app: FastAPI, over: Event) -> None:
        self._app = app
        self._over = over
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None

    def run_next(self) -> None:
        """Take the next job, if there is one, and see it through. Trouble with Redis is logged: the sweep tells a worker again."""
        loop = self._opened()
        hands: RemoteHands = self._service.jobs
        try:
            asyncio.run_coroutine_threadsafe(hands.run_next(), loop).result()
        except NbllmError as exc:
            _log.warning("A job could not be taken: %s", exc.summary)

    @property
    def _service(self) -> Service:
        service: Service = self._app.state.service
        return service

    def _opened(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                born = threading.Event()
                failed: list[BaseException] = []
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._live(born, failed)), name="nbllm-worker", daemon=True
                )
                self._thread.start()
                if not born.wait(_START_S):
                    raise RuntimeError(f"The app did not start within {_START_S:g} s.")
                if failed:
                    self._loop = None
                    raise failed[0]
                self._pid = os.getpid()
            assert self._loop is not None  # noqa: S101 - born
            return self._loop

    async def _live(self, born: threading.Event, failed: list[BaseException]) -> None:
        """Be the service until the process ends."""
        try:
            async with self._app.router.lifespan_context(self._app):
                self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
                born.set()
                while not self._end.is_set():
                    if self._over.is_set():
                        await self._service.jobs.stop()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_EVERY_S):
                            await self._end.wait()
        except BaseException as exc:
            if born.is_set():
                raise
            failed.append(exc)
            born.set()

    def close(self) -> None:
        """Put back what still runs, and close everything."""
        if self._loop is None or self._end is None or self._thread is None or self._pid != os.getpid():
            return
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_END_S)


class Sweeper:
    """Puts jobs of dead workers back, and tells workers of what waits, from the worker's main process."""

    def __init__(self, service: Service, url: str) -> None:
        self._service = service
        self._url = url
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._sweep()), name="nbllm-sweep", daemon=True)
        self._thread.start()

    async def _sweep(self) -> None:
        link = Link(self._url, namespace=namespace_of(self._service.name))
        store = RedisJobs(link, keep_s=self._service.config.job_keep_s, announce=announcing(app))
        while not self._end.is_set():
            try:
                back = await store.sweep()
                if back:
                    _log.warning("%d jobs of workers that died are queued again.", len(back))
            except NbllmError as exc:
                _log.warning("Jobs cannot be swept just now: %s", exc.summary)
            await asyncio.to_thread(self._end.wait, SWEEP_EVERY_S)
        await link.aclose()

    def stop(self) -> None:
        """End."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(_END_S)


def _service_app() -> tuple[FastAPI, str]:
    """Return the app of the folder that NBLLM_APP names, by default the current one, and its Redis. Raises ConfigurationError."""
    url = os.environ.get(VARIABLE, "").strip()
    if not url:
        raise ConfigurationError(
            "Workers share jobs through Redis, and REDIS_URL is not set.", hint="REDIS_URL=redis://HOST:PORT/0"
        )
    loaded = load_app(Path(os.environ.get("NBLLM_APP") or ".").absolute())
    service: Service = loaded.state.service
    service.config = replace(service.config, metrics_port=None)  # that is the replicas'; workers of one machine would fight for it
    return loaded, url


_app, _url = _service_app()
app = celery_app(_url, namespace_of(_app.state.service.name))
_over = multiprocessing.get_context().Event()
_runtime = Runtime(_app, _over)
_sweeper = Sweeper(_app.state.service, _url)


@app.task(name=TASK)  # type: ignore[untyped-decorator]  # Celery has no types
def run_job(job_id: str) -> None:
    """Run a job: the next one, which need not be this one."""
    del job_id
    _runtime.run_next()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(**_: Any) -> None:
    _sweeper.start()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _told_to_end(**_: Any) -> None:
    """Give jobs that run the settings' grace to finish; then they go back into the queue, for another worker."""
    timer = threading.Timer(_app.state.service.config.grace_s, _over.set)
    timer.daemon = True
    timer.start()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _main_ends(**_: Any) -> None:
    _sweeper.stop()
    _runtime.close()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _child_ends(**_: Any) -> None:
    _runtime.close()
