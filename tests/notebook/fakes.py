"""A client with the doors that the notebook uses, playing scripts; and shells that remember what was displayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from nbllm.core.messages import Attempt, Delta, Partial, Usage
from nbllm.core.reply import Reply
from nbllm.errors import AllRungsFailed
from nbllm.live import DeltaEvent, Restarted, Started
from nbllm.settings import Settings


def attempt(number: int = 1, rung: str = "sim/small") -> Attempt:
    """An open attempt."""
    endpoint, _, model = rung.partition("/")
    return Attempt(
        attempt_id=f"a{number}", call_id="call0001", number=number, rung=rung, endpoint=endpoint, model=model, started_at=1.0
    )


def reply(text: str = "Hello.", **changes: Any) -> Reply:
    """A reply of sim/small with all its numbers."""
    values: dict[str, Any] = {
        "text": text, "model": "small", "rung": "sim/small", "source": "model", "finish_reason": "stop", "call_id": "call0001",
        "usage": Usage(input_tokens=12, output_tokens=34), "cost_usd": Decimal("0.0012"), "cost_basis": "exact", "ttft_s": 0.31,
        "latency_s": 1.2, "simulated": True, "message": {"role": "assistant", "content": text},
    }  # fmt: skip
    return Reply(**{**values, **changes})


def delta(text: str = "", **more: Any) -> DeltaEvent:
    """One piece of text."""
    return DeltaEvent(Delta(text=text, **more))


Step = Started | DeltaEvent | Restarted | BaseException | None


@dataclass
class FakeLive:
    """Plays its steps: events, None for a quiet tick, an exception to raise at that place; then `end`, a Reply or an error.

    known: what the ledger knows of the call when it is broken off, where that is not the usual.
    """

    steps: Sequence[Step]
    end: Reply | BaseException
    cancelled: int = 0
    notes: list[str] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)
    _text: str = ""

    def events(self, tick_s: float = 0.1) -> Iterator[Any]:
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, DeltaEvent):
                self._text += step.delta.text
            if isinstance(step, Restarted):
                self._text = ""
            yield step

    @property
    def reply(self) -> Reply:
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def partial(self) -> Partial:
        return Partial(text=self._text)

    def partial_reply(self) -> Reply:
        return reply(self._text, **{"finish_reason": None, "interrupted": True, "cost_basis": "estimated", **self.known})

    def cancel(self) -> None:
        self.cancelled += 1


@dataclass
class FakeClient:
    """Answers each start with the next script; remembers what was asked."""

    scripts: list[FakeLive] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)
    session: str = "s1"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    spent: Decimal = Decimal("0.43")
    refuses: BaseException | None = None

    def play(self, *steps: Step, end: Reply | BaseException | None = None) -> FakeLive:
        """Enqueue a script; without an end the reply is the text of its deltas."""
        text = "".join(s.delta.text for s in steps if isinstance(s, DeltaEvent))
        live = FakeLive(steps, end if end is not None else reply(text))
        self.scripts.append(live)
        return live

    def start(self, prompt: str, *, watched: bool = True, **options: Any) -> FakeLive:
        if self.refuses is not None:
            raise self.refuses
        self.asked.append((prompt, options))
        return self.scripts.pop(0) if self.scripts else FakeLive([delta("Hello.")], reply())

    def configure(self, origin: str = "", **values: Any) -> None:
        self.settings = self.settings.replace_values(origin, **values)

    def spent_session_usd(self) -> Decimal:
        return self.spent

    def models(self) -> list[Any]:
        return []


class Publisher:
    """Stands in for a kernel's display publisher: the bundles in order, whether each was an update, and their metadata."""

    def __init__(self) -> None:
        self.shown: list[tuple[dict[str, Any], bool]] = []
        self.metadata: list[dict[str, Any]] = []

    def publish(self, data: dict[str, Any], metadata: Any = None, *, update: bool = False, **more: Any) -> None:
        self.shown.append((dict(data), update))
        self.metadata.append(dict(metadata or {}))

    def clear_output(self, wait: bool = False) -> None:
        pass


def failed(*causes: Exception) -> AllRungsFailed:
    """What is raised when every rung failed, from these causes."""
    error = AllRungsFailed("No model answered.", causes, hint="Start the server, or set a key.")
    error.spent_usd, error.call_id = None, "call0001"
    return error
