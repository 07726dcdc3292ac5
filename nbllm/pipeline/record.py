"""record: opens the call's ledger row, closes it whatever happens; runs the on_call hooks."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Protocol

from msgspec.structs import asdict, replace

from nbllm.core.messages import AttemptStatus, CallRecord, CallRow, Chat, Embed, Request, Sink
from nbllm.core.ports import Ledger, Recording, Recordings
from nbllm.core.recorded import MOST_KEPT_BYTES
from nbllm.core.reply import Reply
from nbllm.errors import AllRungsFailed, BudgetExceeded, CallFailed, NbllmError
from nbllm.pipeline.stage import Clock, Stage, call_of, committed, written
from nbllm.pipeline.workers import Workers
from nbllm.settings import Settings

Hook = Callable[[CallRecord], object]
_BARE = {Chat: asdict(Chat(messages=())), Embed: asdict(Embed(texts=()))}
"""What a request that sets nothing says; only what differs is recorded."""
_log = logging.getLogger("nbllm")
_HOOKS_S = 2.0
"""How long closing waits for hooks that still run."""
_CLOSE_S = 0.05
"""How long an answer waits for its row, when the ledger is locked."""


class Ended(Protocol):
    """Who is told of every call of the process that has ended (flow_context.Onlooker)."""

    def ended(self, record: CallRecord, home: Path) -> None:
        """Take note of it; its row is in the ledger of this home. Must neither block nor raise."""


class Recorder:
    """What the record stage and the fast door for hits have in common: rows, finished replies, recordings, hooks."""

    def __init__(
        self,
        ledger: Ledger,
        recordings: Callable[[], Recordings],
        clock: Clock,
        settings: Callable[[], Settings],
        workers: Workers,
        *,
        onlookers: Sequence[Ended] = (),
    ) -> None:
        self.ledger = ledger
        self._recordings = recordings
        self.clock = clock
        self._settings = settings
        self._workers = workers
        self.hooks: list[Hook] = []
        self.listeners: list[Hook] = []
        """As hooks, but called at once, where the call ended: for what takes microseconds."""
        self._onlookers = onlookers
        self._running: set[Future[None]] = set()

    def row(self, request: Request) -> CallRow:
        """Return the row of a call as it is opened."""
        return CallRow(**_opening(request))

    def finished(self, reply: Reply, request: Request) -> Reply:
        """Return the reply as the caller gets it: with this call's own cost, time, attempts and notes."""
        call = call_of(request)
        cost_usd, basis = call.spent()
        repairs = [attempt.cost_usd for attempt in call.attempts if attempt.purpose == "repair"]
        return replace(
            reply,
            call_id=call.call_id,
            cost_usd=cost_usd,
            cost_basis=basis,
            latency_s=self.clock.now_s() - call.started_s,
            attempts=tuple(call.attempts),
            repair_cost_usd=None if None in repairs else sum((c for c in repairs if c is not None), Decimal(0)),
            notes=tuple(call.notes),
            why=reply.why.over(call.why),
        )

    def answered(self, reply: Reply, request: Request) -> CallRow:
        """Return the row of a call that has its answer."""
        call, options, usage, why = call_of(request), request.options, reply.usage, reply.why
        return CallRow(  # in one piece, without _opening's dict: a hit is mostly its key and this row
            call_id=call.call_id,
            session=call.session,
            started_at=call.started_at,
            kind=_kind(request),
            model=_asked(request),
            feature=options.feature,
            user=options.user,
            cache=options.cache,
            status=AttemptStatus.DONE,
            rung=reply.rung,
            source=reply.source,
            coalesced=reply.coalesced,
            key_hash=call.key,
            finish_reason=reply.finish_reason,
            ttft_s=reply.ttft_s,
            latency_s=reply.latency_s,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            saved_usd=reply.saved_usd,
            saved_s=reply.saved_s,
            repairs=reply.repairs,
            why=why if why.matched_text is None and why.guards is None else why.without_texts(),
            accepted=reply.accepted,
            cell_id=call.origin.cell_id,
            notebook=call.origin.notebook,
        )

    def failed(self, exc: BaseException, request: Request) -> CallRow:
        """Return the row of a call that ended without one, and tell the error what is known of the call."""
        call = call_of(request)
        if isinstance(exc, CallFailed):
            exc.call_id = call.call_id
            exc.spent_usd = call.spent()[0]
            exc.partial = exc.partial or call.partial or None
        if isinstance(exc, NbllmError):
            for note in call.notes:
                exc.add_note(note)
        cancelled = isinstance(exc, (asyncio.CancelledError, KeyboardInterrupt))
        return CallRow(
            **_opening(request),
            status=AttemptStatus.CANCELLED if cancelled else AttemptStatus.FAILED,
            rung=call.attempts[-1].rung if call.attempts else None,
            key_hash=call.key,
            latency_s=self.clock.now_s() - call.started_s,
            why=call.why,
            error=type(exc).__name__,
        )

    def keep_texts(self, reply: Reply, request: Request) -> None:
        """Keep prompt and answer where recordings are on. Losing one is no reason to lose the answer."""
        if not self._settings().recordings:
            return
        call = call_of(request)
        bare = _BARE[type(request.content)]
        content = {name: value for name, value in asdict(request.content).items() if value != bare[name]}
        answer = {"text": reply.text, "message": dict(reply.message), "finish_reason": reply.finish_reason, "source": reply.source}
        answer |= _seldom_there(reply)
        if reply.why.matched_text is not None:
            answer["matched"] = reply.why.matched_text
        recording = Recording(
            call_id=call.call_id, started_at=call.started_at, model=reply.rung, prompt=content, answer=answer, flow=call.flow,
            session=call.session, notebook=call.origin.notebook,
        )  # fmt: skip
        try:
            self._recordings().keep(recording)
        except NbllmError as exc:
            _log.warning("The texts of call %s were not recorded: %s", call.call_id, exc.summary)

    def call_hooks(self, row: CallRow, request: Request, exc: BaseException | None = None) -> None:
        """Run the hooks in a worker thread, one after the other; what they raise is logged, nothing else. From any thread."""
        if not self.hooks and not self.listeners and not self._onlookers:
            return
        call = call_of(request)
        record = CallRecord(call=row, attempts=tuple(call.attempts), refused=call.refused if exc is None else _refused(exc))
        hooks = tuple(self.hooks)
        for onlooker in self._onlookers:
            onlooker.ended(record, self._settings().home)
        _run_hooks(self.listeners, record)
        if not hooks:
            return
        try:
            done = self._workers.submit(lambda: _run_hooks(hooks, record))
        except RuntimeError:  # the interpreter is on its way out and starts no thread any more
            _log.warning("The on_call hooks of call %s were not run.", row.call_id)
            return
        self._running.add(done)
        done.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Wait a moment for hooks that still run."""
        if self._running:
            await asyncio.wait([asyncio.wrap_future(done) for done in tuple(self._running)], timeout=_HOOKS_S)


def _refused(exc: BaseException) -> tuple[str, Decimal] | None:
    """Return the budget that an error says refused a call, or the last of its causes; and that budget's limit."""
    if isinstance(exc, BudgetExceeded):
        return exc.scope, exc.limit_usd
    if isinstance(exc, AllRungsFailed):
        return next((found for one in reversed(exc.exceptions) if (found := _refused(one))), None)
    return None


def _opening(request: Request) -> dict[str, Any]:
    """Return what a call's row says from the start."""
    call, options = call_of(request), request.options
    return {
        "call_id": call.call_id,
        "session": call.session,
        "started_at": call.started_at,
        "kind": _kind(request),
        "model": _asked(request),
        "feature": options.feature,
        "user": options.user,
        "cache": options.cache,
        "cell_id": call.origin.cell_id,
        "notebook": call.origin.notebook,
    }


def _kind(request: Request) -> Literal["chat", "embed"]:
    return "chat" if type(request.content) is Chat else "embed"


def _asked(request: Request) -> str | None:
    return ",".join(request.models) or None


def _run_hooks(hooks: Sequence[Hook], record: CallRecord) -> None:
    for hook in hooks:
        try:
            hook(record)
        except Exception:
            _log.exception("The on_call hook %r failed; the call itself is not affected.", hook)


class RecordStage:
    """Nothing happens on the road without a row."""

    def __init__(self, inner: Stage, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    async def __call__(self, request: Request, sink: Sink) -> Reply:
        """Open, run, close."""
        recorder, call = self._recorder, call_of(request)
        closed = recorder.row(request)
        # Not waited for: a ledger keeps the order of its rows, and the attempt waits for its own before it is sent.
        written(recorder.ledger.open_call, closed, call)
        failure: BaseException | None = None
        try:
            reply = recorder.finished(await self._inner(request, sink), request)
            closed = recorder.answered(reply, request)
            recorder.keep_texts(reply, request)
        except BaseException as exc:
            closed, failure = recorder.failed(exc, request), exc
            raise
        else:
            return reply
        finally:
            row = written(recorder.ledger.close_call, closed, call)
            recorder.call_hooks(closed, request, failure)
            failure = None  # its traceback holds this frame
            await committed(row, call, at_most_s=_CLOSE_S)


def _seldom_there(reply: Reply) -> dict[str, Any]:
    """Return what else an answer has that a flow may go on with, as core.recorded.retold says; nothing that is too large."""
    found: dict[str, Any] = {"reasoning": reply.reasoning} if reply.reasoning else {}
    if reply.logprobs and len(json.dumps(reply.logprobs, default=str)) <= MOST_KEPT_BYTES:
        found["logprobs"] = list(reply.logprobs)
    if reply.vectors is not None and reply.vectors.size * 4 <= MOST_KEPT_BYTES:
        found["vectors"] = base64.b64encode(reply.vectors.astype("<f4").tobytes()).decode("ascii")
    return found
