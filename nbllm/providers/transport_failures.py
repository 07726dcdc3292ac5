"""What aiohttp raises, as nbllm's errors: one table, most specific first. A test fails for a class that is not in it."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
from aiohttp import client_exceptions
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from nbllm.errors import AttemptFailed, BadAnswer, BadParameter, ConnectionFailed, RedirectRefused
from nbllm.providers.failures import Where, shorten
from nbllm.settings.addresses import address_variable

_TLS = "the TLS handshake failed"
_TLS_HINT = "Check the address; for a company's own certificate authority set SSL_CERT_FILE to its file."
_NET_HINT = "Check the network, and HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
_START_HINT = "Start the server, or check the port in base_url."
_HOST_HINT = "Check the host in base_url, and the network."
_WHOLE = (ConnectionFailed, True)
_ONE = (ConnectionFailed, False)
_BAD = (BadAnswer, False)
_URL = (BadParameter, False)

_TABLE: tuple[tuple[str, tuple[type[AttemptFailed], bool], str, str], ...] = (
    # class, (error, blame on the whole endpoint), what happened, what to do
    (
        "ClientConnectorDNSError",
        _WHOLE,
        "the name of the host could not be resolved",
        _HOST_HINT,
    ),
    ("ClientConnectorCertificateError", _WHOLE, "its certificate was not accepted", _TLS_HINT),
    ("ClientConnectorSSLError", _WHOLE, _TLS, _TLS_HINT),
    ("ClientSSLError", _WHOLE, _TLS, _TLS_HINT),
    ("ClientProxyConnectionError", _WHOLE, "the proxy could not be reached", _NET_HINT),
    ("UnixClientConnectorError", _WHOLE, "the socket could not be reached", _START_HINT),
    ("ClientConnectorError", _WHOLE, "the connection was refused or could not be made", _START_HINT),
    ("ServerFingerprintMismatch", _WHOLE, _TLS, _TLS_HINT),
    ("ClientHttpProxyError", _WHOLE, "the proxy refused the tunnel", _NET_HINT),
    ("ConnectionTimeoutError", _WHOLE, "no connection was made in time", _NET_HINT),
    ("SocketTimeoutError", _ONE, "the connection fell silent", ""),
    ("ServerTimeoutError", _ONE, "the server did not answer in time", ""),
    ("ServerDisconnectedError", _ONE, "the connection was closed before the answer began", ""),
    ("ServerConnectionError", _ONE, "the connection failed", ""),
    ("ClientConnectionResetError", _ONE, "the connection was reset", ""),
    ("ClientOSError", _ONE, "the connection was reset", ""),
    ("ClientConnectionError", _ONE, "the connection failed", ""),
    ("ClientPayloadError", _ONE, "the connection was cut in the middle of the answer", ""),
    ("UploadAbortedError", _ONE, "the connection was cut while the request was sent", ""),
    ("TooManyRedirects", (RedirectRefused, False), "it redirects, which is never followed", "Set base_url to the final address."),
    ("InvalidUrlRedirectClientError", (RedirectRefused, False), "it redirects, which is never followed", ""),
    ("NonHttpUrlRedirectClientError", (RedirectRefused, False), "it redirects, which is never followed", ""),
    ("RedirectClientError", (RedirectRefused, False), "it redirects, which is never followed", ""),
    ("InvalidUrlClientError", _URL, "base_url is no address", "Write it as in http://127.0.0.1:8000/v1."),
    ("NonHttpUrlClientError", _URL, "base_url is no http address", "Write it as in http://127.0.0.1:8000/v1."),
    ("InvalidURL", _URL, "base_url is no address", "Write it as in http://127.0.0.1:8000/v1."),
    ("ContentTypeError", _BAD, "the answer has a content type that nbllm cannot read", ""),
    ("WSServerHandshakeError", _BAD, "the answer is no HTTP", ""),
    ("WSMessageTypeError", _BAD, "the answer is no HTTP", ""),
    ("ClientResponseError", _BAD, "the answer is no HTTP", "Check that base_url is the address of a model server."),
    ("ClientError", _ONE, "the request failed", ""),
)


def _entries() -> tuple[tuple[type[BaseException], tuple[type[AttemptFailed], bool], str, str], ...]:
    known: list[tuple[type[BaseException], tuple[type[AttemptFailed], bool], str, str]] = []
    for name, kind, what, hint in _TABLE:
        found = getattr(client_exceptions, name, None)  # older and newer releases of aiohttp lack some of them
        if found is not None:
            known.append((found, kind, what, hint))
    known.append((ssl.SSLError, _WHOLE, _TLS, _TLS_HINT))
    known.append((asyncio.TimeoutError, _ONE, "the connection fell silent", ""))
    known.append((OSError, _ONE, "the connection failed", ""))
    return tuple(known)


MAPPED = _entries()
FOREIGN: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError, asyncio.TimeoutError)
"""What to catch around aiohttp."""


def transport_failure(exc: BaseException, where: Where) -> AttemptFailed:
    """Return the error for an exception that aiohttp or the socket raised. Raise it `from harmless(exc)`."""
    for foreign, (error, whole_endpoint), what, hint in MAPPED:
        if isinstance(exc, foreign):
            reason = shorten(_reason(exc), where.secrets)
            text = f"{where.rung}: {where.host}: {what}" + (f" ({reason})." if reason else ".")
            movable = bool(where.endpoint) and hint in {_START_HINT, _HOST_HINT}
            moved = f" {address_variable(where.endpoint)} in the environment says where it is now." if movable else ""
            rest: dict[str, Any] = {"rung": where.rung, "hint": hint + moved}
            return (
                ConnectionFailed(text, whole_endpoint=whole_endpoint, **rest) if error is ConnectionFailed else error(text, **rest)
            )
    return ConnectionFailed(f"{where.rung}: {where.host}: the request failed ({type(exc).__name__}).", rung=where.rung)


def _reason(exc: BaseException) -> str:
    """Return the system's own words where it has some: aiohttp's texts may hold whole addresses."""
    cause = getattr(exc, "os_error", None) or getattr(exc, "certificate_error", None) or exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(exc, aiohttp.ClientResponseError):
        return f"{exc.status} {exc.message}"
    return ""


def harmless(exc: BaseException) -> BaseException:
    """Return the exception without what could show a key: the request's headers, and the variables of aiohttp's frames."""
    if isinstance(exc, aiohttp.ClientResponseError):
        empty = CIMultiDictProxy(CIMultiDict[str]())
        url = URL.build(scheme="http", host="redacted")
        exc.request_info = aiohttp.RequestInfo(url, "POST", empty, url)
        exc.headers = None
        exc.history = ()
        exc.args = (exc.status, exc.message)
    exc.__cause__ = None
    exc.__context__ = None
    return exc.with_traceback(None)
