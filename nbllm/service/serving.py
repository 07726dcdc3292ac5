"""Run an app as a server: one process, with limits on slow clients, an orderly end, and a word on what is open to whom."""

from __future__ import annotations

import gc
import math
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvicorn

from nbllm.errors import ConfigurationError
from nbllm.flow_context import PAYERS
from nbllm.service.context import Service
from nbllm.service.flow_prints import flows_print_into_the_log
from nbllm.service.keys import KEY_VARIABLE, MINIMUM_BYTES, former_keys
from nbllm.service.logs import access_log, logging_to, stdout_writer
from nbllm.service.opening import opening_lines

if TYPE_CHECKING:
    from fastapi import FastAPI

_BACKLOG = 2048
_LOGGERS = ("nbllm", "uvicorn", "uvicorn.error", "asyncio")
_YOUNG_OBJECTS = 10_000
"""New objects between two collections; Python's own is 700."""


def serve(
    app: FastAPI,
    *,
    host: str | None = None,
    port: int | None = None,
    say: Callable[[str], object],
    keys_command: str = "nbllm keys make DIR",
    show_key: bool = True,
) -> None:
    """Serve an app until SIGTERM or Ctrl-C; what is under way then has the settings' grace to finish.

    host, port: instead of the settings'. say: gets lines for a person, about what is open to whom; the log goes to stdout.
    show_key: whether a person reads these lines: then a service without a key makes its first one, which is shown there only.
    Raises ConfigurationError before anything is open: no key for a public address, a taken port, a home that cannot be used.
    """
    service: Service = app.state.service
    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    service.config = replace(service.config, **changes)  # type: ignore[arg-type]  # the two have their own types
    _refuse_open(service, keys_command)
    with _bound(service.config.host, service.config.port) as listening:
        # only now: of a start that fails no key would be left that nobody was shown
        key = service.keys.make(note="made at the first start")[0] if show_key and not service.keys.list() else None
        writer = stdout_writer()
        try:
            prints = flows_print_into_the_log(say_what=service.config.log_prompts)
            with logging_to(writer, *_LOGGERS, say_why=service.config.log_prompts), prints:
                service.access_log = access_log(writer)
                _run(app, service, listening, lambda: [say(line) for line in opening_lines(service, listening, key, keys_command)])
        finally:
            writer.close()


def server_for(app: FastAPI, service: Service, opened: Callable[[], object] = lambda: None) -> Server:
    """Return a server of an app, with the limits of its settings. opened: called when it takes requests."""
    config = service.config
    http: Any = "auto"
    sockets: Any = "auto"
    if sys.platform != "win32":  # there is no httptools there: uvicorn's own protocol serves, without limits on slow heads
        from nbllm.service.protocol import protocols_for

        http, sockets = protocols_for(config)
    return Server(
        uvicorn.Config(
            app,
            http=http,
            ws=sockets,
            ws_max_size=config.max_body_bytes,
            ws_per_message_deflate=False,
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=math.ceil(config.idle_s),
            timeout_graceful_shutdown=math.ceil(config.grace_s),
        ),
        service,
        opened,
    )


class Server(uvicorn.Server):
    """uvicorn's, which tells the service when it begins and when it is to end."""

    def __init__(self, config: uvicorn.Config, service: Service, opened: Callable[[], object]) -> None:
        super().__init__(config)
        self._service = service
        self._opened = opened

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            self._opened()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, let what runs finish, end. A signal that was asked for is no failure of the process."""
        self._service.drain()
        await super().shutdown(sockets)
        self._captured_signals.clear()


def spare_collector() -> None:
    """Leave what is loaded out of garbage collections, and collect less often: for a process that does nothing but serve.

    What requests leave behind is counted references as a rule; with Python's own thresholds a tenth of the time went into looking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


def _run(app: FastAPI, service: Service, listening: socket.socket, opened: Callable[[], object]) -> None:
    def begun() -> None:
        spare_collector()
        opened()

    server = server_for(app, service, begun)
    PAYERS.required = True  # whatever asks a model in this process does so for a caller
    try:
        server.run(sockets=[listening])
    except SystemExit:  # uvicorn's way to say that the app did not start
        if service.failure is not None:
            raise service.failure from None
        raise
    finally:
        PAYERS.required = False


def _refuse_open(service: Service, keys_command: str) -> None:
    """Refuse a public address without a key. Raises ConfigurationError."""
    if service.config.public and not service.keys.list():
        former = service.keys.former
        raise ConfigurationError(
            f"{service.config.host} can be reached from other machines, and this service has no key. Nothing was opened."
            + (f" {former_keys(former)}" if former else ""),
            hint=f"Make one: {keys_command} - or set {KEY_VARIABLE} to {MINIMUM_BYTES} random bytes or more.",
        )


def _bound(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        raise ConfigurationError(
            f"{host} port {port} cannot be opened: {exc.strerror or exc}.",
            hint="Is another service running there? Name another port, or 0 for a free one.",
        ) from None
    except OverflowError:
        raise ConfigurationError(f"{port} is no port.", hint="0 to 65535.") from None
