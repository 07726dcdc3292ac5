"""I1-I8 of the design, looked at after each fault: in the ledger, the budgets, the cache, the files, the threads, the sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from nbllm import Client, Endpoint, errors
from nbllm.core.messages import AttemptStatus
from nbllm.core.ports import Filter
from tests.fault_server import FaultServer
from tests.starvation import Waited, within

SECRET = "sk-proj-T3stKeyThatMustNeverShowUpAnywhere0123456789abcd"
ALL = Filter()


def endpoint(server: FaultServer | str, **more: object) -> Endpoint:
    """An endpoint of the fault server, priced, with a key that must never be seen again."""
    base_url = server if isinstance(server, str) else server.base_url
    prices = {"input_usd_per_mtok": Decimal("2.5"), "output_usd_per_mtok": Decimal(10)}
    return Endpoint(base_url=base_url, api_key=SECRET, **{**prices, "context_tokens": 8192, "max_output_tokens": 512, **more})


def check_rows(client: Client, server: FaultServer, models: dict[str, str]) -> None:
    """I1, I3: every request that the server counted has one closed row that is marked sent, and none has a silent 0."""
    sent: dict[str, int] = dict.fromkeys(models, 0)
    for call in client.ledger.calls(ALL, limit=1000):
        assert call.status is not AttemptStatus.OPEN, f"call {call} was never closed"
        for attempt in client.ledger.attempts(call.call_id):
            assert attempt.status not in (AttemptStatus.OPEN, AttemptStatus.UNKNOWN), attempt
            assert attempt.cost_usd is not None, f"priced, so the cost is known or estimated: {attempt}"
            assert attempt.cost_basis in ("exact", "estimated")
            if attempt.rung in sent:
                sent[attempt.rung] += bool(attempt.sent)
    assert sent == {rung: server.count(model) for rung, model in models.items()}, "rows marked sent = requests counted (I1)"


def check_money(client: Client) -> None:
    """I4: nothing stays reserved, and what was booked is what the attempts cost."""
    lines = {line.scope.partition(":")[0]: line for line in client.budget_lines()}
    assert all(line.reserved_usd == 0 for line in lines.values()), lines
    booked = lines["session"].spent_usd
    attempts = [a for call in client.ledger.calls(ALL, limit=1000) for a in client.ledger.attempts(call.call_id)]
    assert booked == sum((a.cost_usd or Decimal(0) for a in attempts), Decimal(0))


def check_error(client: Client, caught: errors.CallFailed) -> None:
    """What an error says of its call is what the ledger has: which call, what it cost, how it ended."""
    (call,) = client.ledger.calls(ALL, limit=2)
    attempts = client.ledger.attempts(call.call_id)
    assert (caught.call_id, type(caught).__name__) == (call.call_id, call.error)
    assert caught.spent_usd == sum((a.cost_usd or Decimal(0) for a in attempts), Decimal(0))
    if isinstance(caught, errors.AllRungsFailed):
        sent = sum(bool(a.sent) for a in attempts)
        assert f"{sent} request{'' if sent == 1 else 's'}, " in caught.summary
        assert all(f"  {rung} (" in caught.summary for rung in {a.rung for a in attempts})
        assert caught.hint


def check_cache(client: Client) -> None:
    """I5: what is kept came to its end and has something in it."""
    for entry in client.store.entries():
        assert entry.answer["finish_reason"] in ("stop", "tool_calls"), entry
        assert entry.answer["text"] or entry.answer["message"]["tool_calls"], entry


def check_no_secret(home: Path, *texts: str) -> None:
    """I6: the key is in no file and in no text that came out."""
    for text in texts:
        assert SECRET not in text
    for path in home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


@contextmanager
def at_most(seconds: float) -> Iterator[Waited]:
    """I8: the caller waits at most the deadline and 0.1 s, from the moment it asks (the client is open by then)."""
    with within(seconds + 0.1) as waited:
        yield waited


def check_nothing_left(server: FaultServer) -> None:
    """I7: after close() no thread of ours runs and no socket is open."""
    give_up = time.monotonic() + 30
    while server.open_connections and time.monotonic() < give_up:
        time.sleep(0.005)
    assert server.open_connections == 0
    while (left := [t.name for t in threading.enumerate() if t.name.startswith("nbllm")]) and time.monotonic() < give_up:
        time.sleep(0.005)
    assert not left, left
