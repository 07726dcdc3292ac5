"""Logs of a service: one JSON object a line, on stdout, written by a thread so that a full pipe stalls no request.

A request's line holds ids, numbers and names; what was asked and answered is in none, unless log_prompts says so: errors are their
kinds and places then, without what they say, and records of other code than the service's are their places. All goes through the
redactor.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, BinaryIO, Protocol

import msgspec
import structlog

from nbllm.errors import NbllmWarning
from nbllm.redaction import redact
from nbllm.service.context import REQUEST_ID
from nbllm.service.failures import way_of
from nbllm.service.flow_prints import real_stream

_MOST_LINES = 50_000
_PAUSE_S = 0.05
"""How long lines are gathered before they are written together."""
_CLOSE_S = 2.0
_SERVERS = ("uvicorn", "gunicorn", "hypercorn", "celery", "kombu")
"""Loggers of what runs the app: they say nothing of what is asked."""
_encode = msgspec.json.Encoder(enc_hook=str).encode
_WARNING = re.compile(r"(.*?:\d+: (\w+)): ")
"""As Python writes one: file, line and category, before what it says."""


class AccessLog(Protocol):
    """Where the guard puts the line of a request."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write one line."""


class LineWriter:
    """Writes lines from a thread. What comes faster than it can be written is dropped and counted; a stream that fails too."""

    def __init__(self, stream: BinaryIO, *, most_lines: int = _MOST_LINES) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._most_lines = most_lines
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._awake = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="nbllm-log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Have a line written soon. From any thread; never waits."""
        if len(self._lines) >= self._most_lines:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._awake:
            self._awake = True
            self._wake.set()

    def close(self) -> None:
        """Write what waits, for two seconds at most, and end the thread."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not (self._closing.is_set() and not self._lines):
            self._wake.wait()
            self._wake.clear()
            self._closing.wait(_PAUSE_S)
            self._awake = False
            self._write_all()

    def _write_all(self) -> None:
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            lines.append(_encode({"event": "log lines were dropped", "level": "warning", "lines": dropped}))
        try:
            if lines:
                self._stream.write(b"\n".join(lines) + b"\n")
                self._stream.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk: no reason to stop serving
            self.dropped += len(lines)


class _Lines:
    """The lines of requests. By hand: what structlog does for one takes a twentieth of what a hit does."""

    def __init__(self, writer: LineWriter) -> None:
        self._write = writer.write

    def info(self, event: str, **fields: Any) -> None:
        """Write one line, in the shape that all others have."""
        fields["event"] = event
        fields["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        fields["level"] = "info"
        self._write(_encode(fields))


def access_log(writer: LineWriter) -> AccessLog:
    """Return what writes a line of JSON for each request."""
    return _Lines(writer)


class JsonHandler(logging.Handler):
    """Records of the standard library's logging as lines of the same shape.

    say_why: with what exceptions, and records of flows and libraries, say, which may be what callers sent. Else a traceback has
    kinds and the way that they took, and a record its place.
    """

    def __init__(self, writer: LineWriter, *, say_why: bool = False) -> None:
        super().__init__()
        self._writer = writer
        self._say_why = say_why
        self._formatter = structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, _with_request],
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info if say_why else _kinds_and_places,
                _redacted,
            ],
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            if not self._say_why and (short := _without_text(record)) is not None:
                record = logging.makeLogRecord({**record.__dict__, "msg": short, "args": None})
            self._writer.write(self._formatter.format(record).encode("utf-8", "replace"))
        except Exception:
            self.handleError(record)


def _without_text(record: logging.LogRecord) -> str | None:
    """Return what is logged of a record that may hold texts of requests, None for all of it.

    Of a warning, which a flow may give as it may print: place and category; nbllm's own are for who runs the service. Of what
    asyncio says its first line: below it are tasks, and what they raised. Of what flows and libraries say where they said it.
    """
    if record.name.partition(".")[0] in ("nbllm", *_SERVERS):
        return None
    if record.name == "asyncio":
        return record.getMessage().partition("\n")[0]
    if record.name == "py.warnings":
        found = _WARNING.match(record.getMessage())
        return found[1] if found and found[2] != NbllmWarning.__name__ else None
    return f"Said at {record.filename}:{record.lineno}; with log_prompts it says what."


def _with_request(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the request, or the job, that the record is of."""
    if (request_id := REQUEST_ID.get()) != "-":
        fields["request_id"] = request_id
    return fields


def _kinds_and_places(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put a traceback without what its exceptions say in the place of exc_info."""
    given = fields.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else None
    if error is not None:
        fields["exception"] = way_of(error)
    return fields


def _redacted(_: Any, __: str, fields: MutableMapping[str, Any]) -> str:
    shown = {name: redact(value) if isinstance(value, str) else value for name, value in fields.items()}
    return _encode(shown).decode()


@contextmanager
def logging_to(writer: LineWriter, *names: str, say_why: bool = False) -> Iterator[None]:
    """Have these loggers, and Python's warnings, write JSON lines for a with block, and to nothing else.

    What others say to stdout or stderr, those of flows and of libraries, becomes JSON lines too; what they say to files and
    elsewhere is theirs. say_why: see JsonHandler.
    """
    handler = JsonHandler(writer, say_why=say_why)
    with _consoles_taken(handler), _loggers_taken(handler, names):
        yield


@contextmanager
def _consoles_taken(handler: logging.Handler) -> Iterator[None]:
    """Have the root logger write to this handler instead of to stdout and stderr, and whoever writes there past the root."""
    root = logging.getLogger()
    every = [root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    found = [(logger, [h for h in logger.handlers if _is_console(h)]) for logger in every if not _is_server(logger)]
    taken = [(logger, handlers) for logger, handlers in found if handlers or logger is root]
    for logger, handlers in taken:
        for one in handlers:
            logger.removeHandler(one)
        if logger is root or not logger.propagate:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handlers in taken:
            logger.removeHandler(handler)
            for one in handlers:
                logger.addHandler(one)


def _is_server(logger: logging.Logger) -> bool:
    return logger.name.partition(".")[0] in _SERVERS


def _is_console(handler: logging.Handler) -> bool:
    if not isinstance(handler, logging.StreamHandler):
        return False
    consoles = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return any(real_stream(handler.stream) is real_stream(console) for console in consoles)


@contextmanager
def _loggers_taken(handler: logging.Handler, names: Sequence[str]) -> Iterator[None]:
    """Have these loggers, and Python's warnings, write to this handler and to nothing else."""
    loggers = [logging.getLogger(name) for name in (*names, "py.warnings")]
    usual = warnings.showwarning
    # Not logging.captureWarnings: it does nothing where somebody who had called it has put another function there since.
    warnings.showwarning = log_warning = _warning_logger(usual)
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        if warnings.showwarning is log_warning:
            warnings.showwarning = usual
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def _warning_logger(usual: Callable[..., None]) -> Callable[..., None]:
    """Return what is to show warnings: as records of the logger py.warnings, as the logging module does it."""

    def log_warning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        if file is not None:
            usual(message, category, filename, lineno, file, line)
            return
        logging.getLogger("py.warnings").warning("%s", warnings.formatwarning(message, category, filename, lineno, line))

    return log_warning


def stdout_writer() -> LineWriter:
    """Return a writer to this process's stdout, whatever stands for it; where that has no bytes, to stderr's."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__):
        with suppress(AttributeError):
            return LineWriter(real_stream(stream).buffer)
    return LineWriter(_Nowhere())  # type: ignore[arg-type]  # it has the two methods that are used


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        """Do nothing."""
