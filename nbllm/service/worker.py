"""What runs jobs where replicas share a Redis: `celery --app nbllm.service.worker worker`, in the app's folder or with NBLLM_APP.

A message says that there is a job, and is trusted with nothing: whoever gets one takes the next job from the queue, under a lease
that it renews. A worker that is killed leaves a lease that lapses; the sweep, here and in every replica, puts its job back. One
that is told to end (SIGTERM) takes nothing new, and what has not finished after the settings' grace_s goes back into the queue.
Each process of a prefork pool opens its own client, sockets and files, after the fork.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.signals import worker_process_shutdown, worker_ready, worker_shutdown, worker_shutting_down
from fastapi import FastAPI

from nbllm.errors import ConfigurationError
from nbllm.service.celery_app import TASK, announcing, celery_app
from nbllm.service.context import Service
from nbllm.service.loading import load_app
from nbllm.service.sharing import VARIABLE, namespace_of
from nbllm.service.sweeper import Sweeper
from nbllm.service.worker_runtime import Runtime


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
_sweeper = Sweeper(_app.state.service, _url, announcing(app))


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
