"""The gateway: one client of this process behind OpenAI's wire, so that other SDKs share its cache, ledger, budgets and limits."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from types import TracebackType
from typing import Self

from nbllm.client import Client
from nbllm.errors import ConfigurationError, NbllmError
from nbllm.redaction import register_secret
from nbllm.service.app import create_app
from nbllm.service.configuration import DEFAULT_TIER, ServiceSettings, Tier
from nbllm.service.keys import KEY_VARIABLE, KeyStore
from nbllm.service.serving import server_for

_START_S, _STOP_S = 30.0, 10.0
_KEY_BYTES = 32
_OPEN_TIER = Tier(requests_per_minute=None, streams=None)
"""It is this process's own client that asks: its budgets and its endpoints' limits hold, a service's tiers add nothing."""


class RunningGateway:
    """An open gateway. A context manager; it ends with `stop`, and with this process.

    base_url: what an SDK takes, with /v1 at its end. key: its one key, random, which ends with it.
    """

    def __init__(self, client: Client, port: int) -> None:
        self.key = secrets.token_urlsafe(_KEY_BYTES)
        register_secret(self.key)
        config = ServiceSettings(
            port=port, docs=False, cache_partition="app", models=("*",), grace_s=1.0, tiers={DEFAULT_TIER: _OPEN_TIER}
        )
        app = create_app(settings=config, client=client, name="gateway")
        service = app.state.service
        # Not the keys of services on the same home: one key, in no file.
        service.keys = KeyStore(client.settings.home / "gateway-has-no-file.json", environ={KEY_VARIABLE: self.key})
        self._service = service
        self._listening = _bound(port)
        self.base_url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        self._server = server_for(app, service)
        self._thread = threading.Thread(target=self._run, name="nbllm-gateway", daemon=True)
        self._thread.start()
        self._wait()

    def __repr__(self) -> str:
        """Return where it is; no key."""
        return f"RunningGateway({self.base_url!r}, {'open' if self.is_open else 'closed'})"

    @property
    def is_open(self) -> bool:
        """Whether it takes requests."""
        return self._thread.is_alive() and self._server.started

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listening])
        except SystemExit:
            pass  # uvicorn's way to say that the app did not start; `_wait` says why
        finally:
            self._listening.close()

    def _wait(self) -> None:
        end_s = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end_s:
                self.stop()
                failure = self._service.failure
                raise failure if isinstance(failure, NbllmError) else ConfigurationError("The gateway could not be opened.")
            time.sleep(0.005)

    def stop(self) -> None:
        """Close it. Requests that are under way have a second to end. The client stays as it is. Stopping twice is fine."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def start_gateway(client: Client, *, port: int = 0) -> RunningGateway:
    """Serve a client at /v1 on loopback and return when it takes requests.

    Any model that the client can reach may be named; what is asked counts as the client's own. port: 0 for a free one. It runs on a
    thread of its own, so it answers while the caller's is busy. Raises ConfigurationError when the port is taken, HomeUnusable.
    """
    return RunningGateway(client, port)


def _bound(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"Port {port} cannot be opened: {getattr(error, 'strerror', None) or error}.", hint="Leave the port out for a free one."
        ) from None
