"""The calls under way, as the panel sees them: counted while they stream, and stopped by their id.

What stands in the way of a call here is an addition a piece and an append a call. Everything else is done by whoever asks.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbllm.core.messages import Attempt, CallRecord, CallRow, Delta, Request, Sink
from nbllm.notebook.lab.values import name, name_or_none, seconds, tag_or_none
from nbllm.notebook.progress import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from nbllm.notebook.lab.shapes import Running

MOST_RUNNING = 50
MOST_RECORDS = 20_000
"""Calls that ended and that nobody has taken yet: beyond, they are left to the ledger."""
MIN_PACE_S = 0.25
"""Below that, tokens a second say more about buffers than about the model (as in the meter line)."""


class Live:
    """One call under way: a sink that counts and passes everything on."""

    __slots__ = ("_sink", "began_s", "chars", "first_s", "home", "last_s", "request", "rung", "stop")

    def __init__(self, request: Request, sink: Sink, stop: Callable[[], object], home: Path) -> None:
        self.request = request
        self.stop = stop
        self.home = home
        self.rung: str | None = None
        self.chars = 0
        self.began_s = time.monotonic()
        self.first_s: float | None = None
        self.last_s = 0.0
        self._sink = sink

    def started(self, attempt: Attempt) -> None:
        """Note the rung."""
        self.rung = attempt.rung
        self._sink.started(attempt)

    def delta(self, delta: Delta) -> None:
        """Count what came."""
        now_s = self.last_s = time.monotonic()
        if self.first_s is None:
            self.first_s = now_s
        self.chars += len(delta.text) + len(delta.reasoning)
        if delta.tool_call is not None:
            self.chars += len(delta.tool_call.arguments)
        self._sink.delta(delta)

    def restarted(self, reason: str) -> None:
        """What came so far counts no more."""
        self.chars, self.first_s = 0, None
        self._sink.restarted(reason)

    @property
    def output_tokens(self) -> int:
        """How many tokens came so far, estimated."""
        return round(self.chars / CHARS_PER_TOKEN)

    def tokens_per_s(self) -> float:
        """Return its pace since its first token, 0 before there is one."""
        first_s, lasted_s = self.first_s, self.last_s - (self.first_s or 0.0)
        return 0.0 if first_s is None or lasted_s < MIN_PACE_S else self.chars / CHARS_PER_TOKEN / lasted_s


class Watching:
    """All calls of this process while somebody looks on (flow_context.Onlooker). wake: tells that something has changed."""

    def __init__(self, wake: Callable[[], object], *, keeps_ended: bool = True) -> None:
        self.wake = wake
        self.keeps_ended = keeps_ended
        """Whether calls that have ended are for somebody to take; if not, the ledger tells of them when somebody comes."""
        self._whose: tuple[Path, str] | None = None
        self._live: dict[str, Live] = {}
        self._ended: deque[tuple[CallRecord, Path]] = deque(maxlen=MOST_RECORDS)
        self.lost = False
        """Whether records were dropped because nobody took them in time."""
        self.has_moved = False
        """Whether something else that is shown has changed since this was last set back."""
        self._earlier: dict[str, CallRow] = {}
        """Calls that were under way before anybody looked, by the ledger: nothing is known of how they come, or how to end them."""

    # ------------------------------------------------------------------ told by the calls

    def begun(self, request: Request, sink: Sink, stop: Callable[[], object], home: Path) -> Sink:
        """See Onlooker."""
        call = request.call
        if call is None:
            return sink
        live = self._live[call.call_id] = Live(request, sink, stop, home)
        self.wake()
        return live

    def over(self, request: Request) -> None:
        """See Onlooker."""
        if request.call is not None:  # that it ended was told before: nobody need be woken again
            self._live.pop(request.call.call_id, None)

    def ended(self, record: CallRecord, home: Path) -> None:
        """See Onlooker."""
        if self.keeps_ended:
            self._ended.append((record, home))
        else:
            self._live.pop(record.call.call_id, None)
        self.wake()

    def changed(self) -> None:
        """See Onlooker."""
        self.has_moved = True
        self.wake()

    # ------------------------------------------------------------------ asked by the panel

    def has_changed(self) -> bool:
        """Whether something else that is shown has changed since this was last asked."""
        moved, self.has_moved = self.has_moved, False  # set back before anything is read: what comes now is for the next time
        return moved

    @property
    def has_earlier(self) -> bool:
        """Whether the ledger knows of calls under way that were not seen to begin."""
        return bool(self._earlier)

    @property
    def is_busy(self) -> bool:
        """Whether any call is under way whose numbers may move."""
        return any(self._is_shown(live) for live in list(self._live.values()))

    def of(self, home: Path, session: str) -> None:
        """Tell of the calls of this session in this home's ledger from now on: other clients of the process may have others."""
        self._whose, self._earlier = (home, session), {}

    def _is_theirs(self, home: Path, session: str) -> bool:
        """Whether a call is on another account than what is shown."""
        whose = self._whose
        return whose is not None and (session != whose[1] or (home is not whose[0] and not _same(home, whose[0])))

    def _is_shown(self, live: Live) -> bool:
        call = live.request.call
        return call is not None and not self._is_theirs(live.home, call.session)

    def lives(self) -> list[Live]:
        """Return the calls under way that are seen to come, the oldest first."""
        return [live for live in list(self._live.values()) if self._is_shown(live)]

    def take(self) -> list[CallRecord]:
        """Return the calls that have ended since it was last asked, in order."""
        taken: list[CallRecord] = []
        if len(self._ended) == MOST_RECORDS:
            self.lost = True
        while self._ended:
            record, home = self._ended.popleft()
            call = record.call
            self._live.pop(call.call_id, None)  # its line is among the calls: it is not under way as well
            self._earlier.pop(call.call_id, None)
            if not self._is_theirs(home, call.session):
                taken.append(record)
        return taken

    def found_open(self, rows: Iterable[CallRow]) -> None:
        """Take in which calls the ledger says are under way."""
        self._earlier = {row.call_id: row for row in rows if row.call_id not in self._live}

    def stop(self, call_id: str) -> bool | None:
        """End a call; False for one that is not under way, None for one that cannot be ended from here."""
        live = self._live.get(call_id)
        if live is None:
            return None if call_id in self._earlier else False
        live.stop()
        return True

    def running(self, lives: Sequence[Live], now_s: float, now: float) -> list[Running]:
        """Return the calls under way as lines, the oldest first, at most MOST_RUNNING. now_s is monotonic, now Unix time."""
        shown = [(live, _shares(live.request)) for live in lives[:MOST_RUNNING]]
        asked = Counter(key for _, key in shown if key is not None)
        theirs = {key[0] for key in asked}
        for live in lives[MOST_RUNNING:] if theirs else ():
            call = live.request.call
            if call is not None and call.key in theirs and (key := _shares(live.request)) is not None:
                asked[key] += 1
        lines = [_earlier_line(row, now) for row in list(self._earlier.values())]
        lines += [_line(live, now_s, shared=key is not None and asked[key] > 1) for live, key in shown]
        return lines[:MOST_RUNNING]

    def pace(self, lives: Sequence[Live]) -> tuple[int, float | None]:
        """Return how many calls are under way, and their tokens a second together, None while nothing comes."""
        tokens_per_s = sum(live.tokens_per_s() for live in lives if live.first_s is not None)
        return len(lives) + len(self._earlier), round(tokens_per_s, 1) if tokens_per_s else None


@lru_cache(64)
def _same(one: Path, other: Path) -> bool:
    """Whether both name the same folder."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _shares(request: Request) -> tuple[Any, ...] | None:
    """Return what calls of one shared run have in common (see pipeline.coalesce), None for a call that shares nothing."""
    call, options = request.call, request.options
    if call is None or call.key is None or options.cache == "off":
        return None
    return call.key, id(options.check), options.cache, options.on_interrupt, options.semantic is False


def _line(live: Live, now_s: float, *, shared: bool) -> Running:
    call = live.request.call
    assert call is not None  # noqa: S101 - begun() keeps no other
    first_s = live.first_s
    return {
        "call_id": call.call_id,
        "model": name(_asked(live)),
        "rung": name_or_none(live.rung),
        "started_at": min(max(call.started_at, 0.0), 1e11),
        "elapsed_s": round(max(0.0, now_s - live.began_s), 1),
        "output_tokens": live.output_tokens,
        "ttft_s": None if first_s is None else seconds(first_s - live.began_s),
        "cell_id": name_or_none(call.origin.cell_id),
        "notebook": tag_or_none(call.origin.notebook),
        "shared": shared,
        "stoppable": True,
    }


def _asked(live: Live) -> str:
    """Return what was asked for; where no model was named, who is asked first."""
    request = live.request
    return ",".join(request.models) or live.rung or (request.rungs[0].id if request.rungs else "")


def _earlier_line(row: CallRow, now: float) -> Running:
    return {
        "call_id": row.call_id,
        "model": name(row.model or row.rung or ""),
        "rung": name_or_none(row.rung),
        "started_at": min(max(row.started_at, 0.0), 1e11),
        "elapsed_s": round(max(0.0, now - row.started_at), 1),
        "output_tokens": 0,
        "ttft_s": None,
        "cell_id": name_or_none(row.cell_id),
        "notebook": tag_or_none(row.notebook),
        "shared": False,
        "stoppable": False,
    }
