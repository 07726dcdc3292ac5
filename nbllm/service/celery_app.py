"""The Celery app through which replicas tell workers of jobs. It carries ids; what is to be done, and by whom, is in the row."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from celery import Celery
from redis.connection import parse_url

from nbllm.service.redis_jobs import MESSAGES

TASK = "nbllm.run_job"
_PREFIX, _, QUEUE = MESSAGES.rpartition(":")
"""On Redis the queue is the list NAMESPACE:celery:jobs, by whose length workers can be scaled."""
_ANSWERS_S = 2.0


def celery_app(url: str, namespace: str) -> Celery:
    """Return the app on a Redis. Nothing is opened yet. namespace: what the names of its queue and keys begin with."""
    app = Celery("nbllm", broker=broker_url(url))
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=False,  # a message that is lost is sent again by the sweep: the row is the truth
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,  # it would log what flows print, and leave no stdout for the service's own lines
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": f"{namespace}:{_PREFIX}:",
            "socket_timeout": _ANSWERS_S,
            "socket_connect_timeout": _ANSWERS_S,
            "socket_keepalive": True,
        },
    )
    if urlsplit(url).scheme == "rediss":
        asked = {name: value for name, value in _options(url).items() if name.startswith("ssl_")}
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **asked}
    return app


def broker_url(url: str) -> str:
    """Return the address as Celery writes it: the database in the path, without redis-py's options, sockets in a way of its own."""
    parts, database = urlsplit(url), _options(url).get("db", 0)
    if parts.scheme == "unix":
        return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", "", ""))


def _options(url: str) -> dict[str, Any]:
    return dict(parse_url(url))  # type: ignore[no-untyped-call]  # redis-py gives no types here


def announcing(app: Celery) -> Callable[[str], None]:
    """Return what tells the workers of a job. It blocks for a moment, and raises what the broker raises."""

    def announce(job_id: str) -> None:
        app.send_task(TASK, args=[job_id], ignore_result=True, retry=False)

    return announce
