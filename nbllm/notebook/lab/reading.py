"""What the panel shows and only the ledger, the budgets and the breakers know. Called in worker threads: all of it may wait."""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from sys import modules
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.core.messages import Attempt, AttemptStatus, CallRow
from nbllm.core.ports import Filter, UsageRow
from nbllm.notebook.lab.rows import Sums, Tries, budget_row, call_line
from nbllm.notebook.lab.values import count, name
from nbllm.settings import Settings
from nbllm.storage.ledger_read import usages

if TYPE_CHECKING:
    from nbllm.client import Client
    from nbllm.engines import Engine as Running
    from nbllm.house import ModelSeen
    from nbllm.notebook.lab.shapes import Budget, CallLine, EndpointLine, Engine, EngineState

MOST_CALLS = 200
MOST_ATTEMPTS_OF = 2_000
"""Of so many of the session's newest calls the attempts are counted, when the panel is opened."""
_MOST_SHOWN = 50
_ENGINES = "nbllm.engines.engine"
"""Not loaded: none was started."""
_LOOKS = 3
_ENGINE_STATES: dict[str, EngineState] = {
    "ready": "ready",
    "wedged": "wedged",
    "silent": "wedged",
    "ended": "failed",
    "stopped": "stopped",
}


@dataclass(slots=True)
class SessionRead:
    """A session as the ledger has it. under_way: the calls that are not over. whole: the sums are those of these very rows."""

    sums: Sums = field(default_factory=Sums)
    calls: list[CallLine] = field(default_factory=list)
    under_way: list[CallRow] = field(default_factory=list)
    tries: Tries = field(default_factory=Tries)
    whole: bool = True

    def has(self, row: CallRow) -> bool | None:
        """Whether a call that is over by now was over in what was read; None when that cannot be told."""
        if any(line["call_id"] == row.call_id for line in self.calls):
            return True
        known = len(self.calls) + len(self.under_way) < MOST_CALLS or row.started_at > self.calls[-1]["started_at"]
        return False if known or any(one.call_id == row.call_id for one in self.under_way) else None


def read_session(client: Client) -> SessionRead:
    """Return the client's session: again, some times, where calls ended between the looks at rows and sums."""
    for _ in range(_LOOKS):
        read = _read_session(client)
        if read.whole:
            break
    return read


def _read_session(client: Client) -> SessionRead:
    ledger, where = client.ledger, Filter(session=client.session)
    rows = ledger.calls(where, limit=MOST_CALLS)
    attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
    tries = Tries()
    for one in ledger.attempts_of(where, limit=MOST_ATTEMPTS_OF):
        attempts[one.call_id].append(one)
        tries.add((one,))
    totals, models = ledger.usages(("total", "model"), where)
    open_rows = [row for row in rows if row.status is AttemptStatus.OPEN]
    sums = Sums.read(totals, models)
    same = all(list(ledger.attempts(row.call_id)) == attempts[row.call_id] for row in open_rows)
    for row in open_rows:
        sums.leave_out(row, attempts[row.call_id])
    return SessionRead(
        sums=sums,
        calls=[call_line(row, attempts[row.call_id]) for row in rows if row.status is not AttemptStatus.OPEN],
        under_way=open_rows,
        tries=tries,
        whole=same and rows == ledger.calls(where, limit=MOST_CALLS),
    )


class Day(NamedTuple):
    """What calls have cost, and how many there were."""

    cost_usd: Decimal = Decimal(0)
    calls: int = 0


class TodayRead(NamedTuple):
    """This day, UTC, on this home, but for what the session that is shown has used: that is known up to the last call.

    others: calls of other sessions that are over. before: what of the session is of the days before. of_session: False where
    nothing was asked yet, and others are all.
    """

    others: Day = Day()
    before: Day = Day()
    of_session: bool = False


def read_today(client: Client | None) -> TodayRead:
    """Return this day as the ledger has it. A client that was asked nothing yet, and none at all, is left as it is.

    The session's own calls, which may end while it is read, are in no number of it, so what is added to it is exact.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    today = Filter(since=midnight)
    if client is not None and client.is_open:
        others = _day(row for row in client.ledger.usage("session", today, ended=True) if row.group != client.session)
        before = _day(client.ledger.usage("total", Filter(session=client.session, until=midnight)))
        return TodayRead(others, before, of_session=True)
    settings = Settings.load() if client is None else client.settings
    path = Path(settings.home) / "ledger.db"
    if not path.is_file():
        return TodayRead()
    # Only looked at: nothing is made, moved to a newer version or tidied up by a page that is opened.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as con:
        return TodayRead(_day(usages(con, ("total",), today, ended=True)[0]))


def _day(rows: Iterable[UsageRow]) -> Day:
    rows = list(rows)
    return Day(sum((row.cost_usd for row in rows), Decimal(0)), sum(row.calls for row in rows))


@dataclass(slots=True)
class Standing:
    """How budgets and endpoints stand."""

    budgets: list[Budget]
    models: Sequence[ModelSeen]
    engines: dict[str, Engine]


def read_standing(client: Client | None, models: Sequence[str], refused: tuple[str, Decimal] | None) -> Standing:
    """Return how budgets and endpoints stand; of a client that was asked nothing yet, and of none, only the engines.

    models: those that were asked, besides those that the settings name. refused: see CallRecord, of the last call.
    """
    known = client if client is not None and client.is_open else None
    return Standing(
        budgets=[] if known is None else [budget_row(line, refused) for line in known.budget_lines()[:100]],
        models=() if known is None else known.models_seen(models),
        engines=_engines(),
    )


def may_have_engines() -> bool:
    """Whether any engine was started in this process, or is about to."""
    return _ENGINES in modules


def _engines() -> dict[str, Engine]:
    loaded: Any = modules.get(_ENGINES)
    if loaded is None:
        return {}
    starting: dict[str, Engine] = {name: {"state": "starting", "running": None, "waiting": None} for name in loaded.starting()}
    return starting | {engine.name: _engine(engine) for engine in loaded.running()}


def _engine(engine: Running) -> Engine:
    """Return how an engine does. One that is not ours is not asked: to see whether it answers costs it a token."""
    status = engine.status() if engine.pid is not None else None
    return {
        "state": _ENGINE_STATES.get(engine.state if status is None else status.state, "failed"),
        "running": None if status is None else count(status.running),
        "waiting": None if status is None else count(status.waiting),
    }


def endpoint_lines(standing: Standing | None, tries: Tries) -> list[EndpointLine]:
    """Return each endpoint that the settings name, that was asked, or that runs here."""
    models: defaultdict[str, list[ModelSeen]] = defaultdict(list)
    for seen in () if standing is None else standing.models:
        models[seen.endpoint].append(seen)
    engines = {} if standing is None else standing.engines
    lines: list[EndpointLine] = []
    for endpoint in list(dict.fromkeys([*models, *tries.sent, *engines]))[:_MOST_SHOWN]:
        seen_here = models[endpoint][:_MOST_SHOWN]
        lines.append(
            {
                "name": name(endpoint),
                "models": [{"model": name(seen.model), "breaker": _breaker(seen.standing)} for seen in seen_here],
                "error_rate": tries.error_rate(endpoint),
                "attempts": tries.sent.get(endpoint, 0),
                "requests_left": _least([seen.requests_left for seen in seen_here]),
                "tokens_left": _least([seen.tokens_left for seen in seen_here]),
                "engine": engines.get(endpoint),
            }
        )
    return lines


def _breaker(standing: str) -> Any:
    return standing if standing in ("closed", "half open", "open", "off") else "off"


def _least(known: Sequence[int | None]) -> int | None:
    numbers = [number for number in known if number is not None]
    return count(min(numbers)) if numbers else None


def now() -> tuple[float, float]:
    """Return the monotonic and the Unix time, in seconds."""
    return time.monotonic(), time.time()
