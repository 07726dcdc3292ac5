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
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.signals import worker_process_shutdown, worker_ready, worker_shutdown, worker_shutting_down
from fastapi import FastAPI

from nbllm.errors import ConfigurationError, NbllmError
from nbllm.service.celery_app import TASK, announcing, celery_app
from nbllm.service.context import Service
from nbllm.service.loading import load_app
from nbllm.service.redis_jobs import RedisJobs
from nbllm.service.sharing import VARIABLE, namespace_of
from nbllm.service.worker_runtime import Runtime
from nbllm.storage.redis_link import Link

SWEEP_EVERY_S = 5.0
_END_S = 10.0
_log = logging.getLogger("nbllm.service")


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


def _redis_url() -> str:
    """Return where the Redis is that workers share. Raises ConfigurationError."""
    url = os.environ.get(VARIABLE, "").strip()
    if not url:
        raise ConfigurationError(
            "Workers share jobs through Redis, and REDIS_URL is not set.", hint="REDIS_URL=redis://HOST:PORT/0"
        )
    return url


def _service_app() -> FastAPI:
    """Return the app of the folder that NBLLM_APP names, by default the current one. Raises ConfigurationError."""
    loaded = load_app(_folder)
    service: Service = loaded.state.service
    service.config = replace(service.config, metrics_port=None)  # that is the replicas'; workers of one machine would fight for it
    return loaded


_url = _redis_url()
_folder = Path(os.environ.get("NBLLM_APP") or ".").absolute()  # the app may be loaded again, from wherever the process is by then
_app = _service_app()
app = celery_app(_url, namespace_of(_app.state.service.name))
_over = multiprocessing.get_context().Event()
_runtime = Runtime(_app, _service_app, _over)
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
