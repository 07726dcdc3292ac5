"""Flows to be served in tests, and an app of them whose models a FakeProvider plays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import httpx
from pydantic import BaseModel

import nbllm
from nbllm import flow
from nbllm.service import create_app
from nbllm.testing import FakeProvider, Script
from tests.service.running import Running, running, write_settings

HANGS = Script(pieces=("One ",), hang=True)
HOUR = threading.Event()
"""Set when flows that sleep for an hour are to wake up."""


class Person(BaseModel):
    name: str
    mail: str | None = None


@dataclass
class Ticket:
    text: str
    by: Person
    tags: list[str] = field(default_factory=list)


class Options(TypedDict):
    lang: Literal["en", "de"]


class Triage(BaseModel):
    priority: Literal["low", "high"]
    owner: Person | None
    answer: str


@flow
def triage(ticket: Ticket, options: Options | None = None, limit: int = 3) -> Triage:
    """Sort a ticket.

    By asking a model.
    """
    answer = nbllm.ask(f"Classify in {(options or {}).get('lang', 'en')}: {ticket.text}").text
    return Triage(priority="high" if limit > 1 else "low", owner=ticket.by, answer=answer)


@flow
def say(text: str, model: str | None = None) -> str:
    return nbllm.ask(text, **({"model": model} if model else {})).text


@flow
async def later(text: str) -> str:
    return (await nbllm.aask(text)).text


@flow
def two(text: str) -> list[str]:
    return [nbllm.ask(text).text, nbllm.ask(text + " again").text]


@flow
def raises(text: str) -> str:
    raise ValueError(f"private: {text}")


@flow
def lies(text: str) -> int:
    return text  # type: ignore[return-value]  # the mistake is meant


@flow
def prints(text: str) -> str:
    print(text)
    return "said"


@flow
def sleeps() -> str:
    HOUR.wait(60)
    return "late"


@flow
def number(value: float) -> float:
    return value * 2


ALL = (triage, say, later, two, raises, lies, prints, sleeps, number)
TICKET = {"ticket": {"text": "help", "by": {"name": "Ada"}}}


@dataclass(frozen=True)
class Served:
    """A running app, the provider behind it, and a client of it that shows a key."""

    it: Running
    fake: FakeProvider
    http: httpx.Client

    def another_key(self) -> dict[str, str]:
        """Make one more key; return its header."""
        return {"Authorization": f"Bearer {self.it.service.keys.make('default')[0]}"}


@contextmanager
def serving(
    folder: Path,
    fake: FakeProvider | None = None,
    flows: Sequence[Callable[..., Any]] = ALL,
    *,
    service: str = "",
    top: str = 'ladder = ["sim/small"]',
) -> Iterator[Served]:
    """Serve flows. service: lines of [service]."""
    fake = fake or FakeProvider(default="fine")
    app = create_app(flows, write_settings(folder, service, top))
    app.state.service.client._providers = {"simulated": fake}
    with running(app) as it, httpx.Client(base_url=it.url, headers=it.headers, timeout=30) as http:
        yield Served(it, fake, http)
