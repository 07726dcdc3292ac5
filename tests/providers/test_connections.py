"""Sockets between requests: keep-alive, stale connections, proxies, certificates, closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import ssl
import subprocess
import threading
import warnings
from pathlib import Path

import pytest
from yarl import URL

from nbllm.core.messages import Ending
from nbllm.errors import ConfigurationError, ConnectionFailed, RateLimited, ServerFailed
from nbllm.providers.connections import Certificates, Proxies, is_loopback
from nbllm.providers.openai_compatible import OpenAICompatible
from tests import fault_behaviours as faults
from tests.fault_server import FaultServer
from tests.providers.helpers import Heard, endpoint, run, wire


@pytest.mark.parametrize("streamed", [False, True])
def test_one_connection_serves_many_requests(streamed: bool) -> None:
    """Answers and errors that were read to their end give their connection back."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [faults.ok(), faults.error(500), faults.ok(tool_calls=True), faults.rate_limited(), faults.ok()])
            provider = OpenAICompatible({})
            for _ in range(5):
                with contextlib.suppress(ServerFailed, RateLimited):
                    await provider.send(wire(server.base_url, streamed=streamed), Heard())
            assert (server.count(), server.connections) == (5, 1)
            await provider.aclose()
            await server.settled()

    run(scenario())


def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unsent() -> None:
    """The server closes idle connections right before the next request: it is sent once, on a new one, and counted once."""

    async def scenario() -> None:
        async with FaultServer() as server:
            provider = OpenAICompatible({})
            await asyncio.gather(*(provider.send(wire(server.base_url), Heard()) for _ in range(3)))
            for number in range(1, 20):
                heard = Heard()
                server.close_idle()
                ending = await provider.send(wire(server.base_url), heard)
                assert isinstance(ending, Ending)
                assert (heard.sent_count, server.count()) == (1, 3 + number)
            await provider.aclose()

    run(scenario())


def test_a_reset_after_the_request_was_counted_is_never_sent_again() -> None:
    """On a reused connection too: a request that the server read is not repeated by itself."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [faults.ok(), faults.reset()])
            provider, heard = OpenAICompatible({}), Heard()
            await provider.send(wire(server.base_url), Heard())
            with pytest.raises(ConnectionFailed):
                await provider.send(wire(server.base_url), heard)
            assert (heard.sent_count, server.count(), server.connections) == (1, 2, 1)
            await provider.aclose()

    run(scenario())


def test_sent_is_said_before_the_answer_and_not_before_the_connection() -> None:
    """A cancel while connecting leaves the request unsent; sent() comes while the server still thinks."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [faults.stall()])
            provider, heard = OpenAICompatible({}), Heard()
            task = asyncio.create_task(provider.send(wire(server.base_url), heard))
            await asyncio.sleep(0)
            assert heard.sent_count == 0
            while not server.requests:
                await asyncio.sleep(0.001)
            assert heard.sent_count == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await provider.aclose()

    run(scenario())


def test_closing_ends_what_is_under_way_and_leaves_no_socket() -> None:
    """Requests in flight end with an error, every socket is closed when aclose returns, and nothing can be sent after it."""

    async def scenario() -> None:
        async with FaultServer() as server:
            server.script("m", [faults.stall("tokens")])
            provider, heard = OpenAICompatible({}), Heard()
            task = asyncio.create_task(provider.send(wire(server.base_url, streamed=True), heard))
            await heard.first.wait()
            await provider.aclose()
            (error,) = await asyncio.gather(task, return_exceptions=True)
            assert type(error).__name__ == "StreamInterrupted"
            await server.settled()
            with pytest.raises(RuntimeError, match="closed"):
                await provider.send(wire(server.base_url), Heard())

    run(scenario())


def test_each_loop_has_its_own_session() -> None:
    """A second event loop in another thread works with the same provider, and a closed loop leaves nothing behind to fail."""
    provider = OpenAICompatible({})
    with FaultServer() as server:

        async def ask() -> None:
            assert isinstance(await provider.send(wire(server.base_url), Heard()), Ending)

        async def scenario() -> None:
            await ask()
            ready, done = threading.Event(), asyncio.Event()
            loop = asyncio.new_event_loop()

            async def elsewhere() -> None:
                await ask()
                ready.set()
                await done.wait()

            thread = threading.Thread(target=lambda: loop.run_until_complete(elsewhere()))
            thread.start()
            await asyncio.to_thread(ready.wait, 5)
            await provider.aclose()
            loop.call_soon_threadsafe(done.set)
            await asyncio.to_thread(thread.join, 5)
            loop.close()

        run(scenario())
        assert server.count() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_starts_fresh_and_leaves_the_parents_connections_alone() -> None:
    """A child sends on connections of its own and closes only those; the parent goes on with the connection that it had."""
    provider = OpenAICompatible({})
    with FaultServer() as server:

        async def ask() -> None:
            assert isinstance(await provider.send(wire(server.base_url), Heard()), Ending)

        def child() -> int:
            async def work() -> None:
                await ask()
                await provider.aclose()

            asyncio.run(work())
            gc.collect()
            return 0

        async def scenario() -> None:
            await ask()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
                pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = child()
                finally:
                    os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            await ask()
            await provider.aclose()

        run(scenario())
        assert [request.connection for request in server.requests] == [1, 2, 1]


def test_a_proxy_of_the_environment_is_used_and_netrc_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HTTP_PROXY gets the request with its own password; a .netrc for the host adds nothing beside our key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine models.example login me password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)

    async def scenario() -> None:
        async with FaultServer() as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:pass-word@127.0.0.1:{proxy.port}")
            provider = OpenAICompatible({})
            place = endpoint("http://models.example/v1", api_key="key-of-mine")
            assert isinstance(await provider.send(wire(place), Heard()), Ending)
            (request,) = proxy.requests
            assert request.path == "http://models.example/v1/chat/completions"
            assert request.headers["authorization"] == "Bearer key-of-mine"
            assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="
            await provider.aclose()

    run(scenario())


def test_which_proxy_an_address_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scheme, never for loopback, not for NO_PROXY; a change of the variables is noticed; a SOCKS proxy is refused clearly."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "NO_PROXY", "no_proxy", "REQUEST_METHOD", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxies = Proxies()
    assert proxies.for_url(URL("https://models.example/v1")) is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert proxies.for_url(URL("https://models.example/v1")) == URL("http://proxy.example:3128")
    assert proxies.for_url(URL("https://127.0.0.1:8000/v1")) is None
    assert proxies.for_url(URL("https://localhost/v1")) is None
    monkeypatch.setenv("NO_PROXY", "models.example")
    assert proxies.for_url(URL("https://models.example/v1")) is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(ConfigurationError, match="socks5"):
        proxies.for_url(URL("https://other.example/v1"))


@pytest.mark.parametrize(
    ("host", "here"), [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("a.localhost", True), ("10.0.0.1", False)]
)
def test_what_loopback_is(host: str, here: bool) -> None:
    """Names and addresses of this machine, in both families."""
    assert is_loopback(host) is here


def test_a_certificate_authority_of_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server with a private CA is refused, accepted with SSL_CERT_FILE or REQUESTS_CA_BUNDLE, and with verify_tls=False."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate and is not installed")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    options = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", *names]
    subprocess.run([openssl, *options, "-keyout", key, "-out", cert], check=True, capture_output=True)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)

    async def scenario() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        async with FaultServer(tls=context) as server:
            url = server.base_url.replace("127.0.0.1", "localhost")
            provider, heard = OpenAICompatible({}), Heard()
            with pytest.raises(ConnectionFailed, match="certificate") as caught:
                await provider.send(wire(url), heard)
            assert caught.value.whole_endpoint
            assert (heard.sent_count, server.count()) == (0, 0)
            for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                with monkeypatch.context() as patch:
                    patch.setenv(name, str(cert))
                    for streamed in (False, True):
                        assert isinstance(await provider.send(wire(url, streamed=streamed), Heard()), Ending)
            assert isinstance(await provider.send(wire(endpoint(url, verify_tls=False)), Heard()), Ending)
            await provider.aclose()
            await server.settled()

    run(scenario())


def test_a_certificate_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the variable that holds the wrong path."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        asyncio.run(Certificates().context())
