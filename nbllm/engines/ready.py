"""Is it ready? /health answers 200, then the model's name is in /v1/models, then one token is completed. Health alone is not it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nbllm.engines.catalog import EngineKind
from nbllm.engines.door import Answer, Door, NoAnswer, TooLate
from nbllm.engines.events import Stage
from nbllm.errors import EngineFailed, EngineWedged

LOOK_EVERY_S = 0.2
ASK_S = 10.0
HELLO = "Hi"
_OTHER_WAY = {400, 404, 405, 422}
"""Statuses that say that the server does not do this, but perhaps the other."""
Tick = Callable[[Stage], object]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which model is asked, and how: a model without a chat template answers at /completions only."""

    model: str
    chat: bool = True

    def body(self) -> dict[str, object]:
        """Return a request for one token."""
        text: dict[str, object] = {"messages": [{"role": "user", "content": HELLO}]} if self.chat else {"prompt": HELLO}
        return {"model": self.model, "max_tokens": 1, "temperature": 0, **text}

    @property
    def path(self) -> str:
        """Where the request goes, below /v1."""
        return "/chat/completions" if self.chat else "/completions"


def wait_until_ready(door: Door, kind: EngineKind, model: str, tick: Tick, *, timeout_s: float) -> Asked:
    """Return how to ask the engine for a token, when it has given one.

    tick: called some times a second with the stage; raises when the engine has ended. timeout_s: how long /health may take; from
    then on there is kind.first_answer_s for the rest. Raises EngineFailed (reason "timeout", "no_such_model", "no_completion") and
    EngineWedged.
    """
    _wait_for_health(door, kind, tick, time.monotonic() + timeout_s)
    limit = Limit(kind.first_answer_s)
    _check_name(door, kind, model, lambda: tick("listening"), limit)
    tick("first answer")
    return first_token(door, kind, model, lambda: tick("first answer"), limit)


class Limit:
    """How long a server that says it is healthy may take until it has given one token, from now."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._end_s = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """What is left of it."""
        return max(0.0, self._end_s - time.monotonic())


def _wait_for_health(door: Door, kind: EngineKind, tick: Tick, end_s: float) -> None:
    while True:
        tick("loading")
        limit_s = min(ASK_S, max(LOOK_EVERY_S, end_s - time.monotonic()))
        try:
            if door.ask(door.root(kind.health), limit_s=limit_s, tick=lambda: tick("loading")).status == 200:
                return
        except NoAnswer:
            pass
        if time.monotonic() >= end_s:
            raise EngineFailed(
                f"{kind.title} did not become ready in time.", reason="timeout", hint="Give it longer: timeout_s= (--timeout)."
            )
        time.sleep(LOOK_EVERY_S)


def _check_name(door: Door, kind: EngineKind, model: str, tick: Callable[[], object], limit: Limit) -> None:
    said: Answer | None = None
    while said is None or said.status != 200:
        tick()
        if not limit.left_s:
            if said is None:
                raise wedged(kind.title, limit.limit_s)
            raise EngineFailed(f"{kind.title} does not list its models: {said.status} {said.message()}", reason="no_completion")
        try:
            said = door.ask(door.v1("/models"), limit_s=min(ASK_S, limit.left_s), tick=tick)
        except NoAnswer:
            said = None
        if said is None or said.status != 200:
            time.sleep(min(LOOK_EVERY_S, limit.left_s))
    names = model_names(said)
    if not {model, f"{model}:latest"} & set(names):
        pull = f"Get it first: ollama pull {model}." if kind.own_names else "Look at the model's name."
        raise EngineFailed(
            f"{kind.title} runs and has no model {model!r}; it has {', '.join(names[:8]) or 'none'}.",
            reason="no_such_model",
            hint=pull,
        )


def model_names(answer: Answer) -> list[str]:
    """Return the ids that /v1/models lists."""
    listed = answer.json().get("data")
    rows = listed if isinstance(listed, list) else []
    return [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]


def first_token(door: Door, kind: EngineKind, model: str, tick: Callable[[], object] | None, limit: Limit) -> Asked:
    """Ask for one token and return the way in which it came. Raises EngineFailed, EngineWedged."""
    said = ""
    for asked in (Asked(model), Asked(model, chat=False)):
        try:
            answer = door.ask(door.v1(asked.path), asked.body(), limit_s=limit.left_s, tick=tick)
        except TooLate:
            raise wedged(kind.title, limit.limit_s) from None
        except NoAnswer as error:
            if tick is not None:
                tick()
            raise EngineFailed(f"{kind.title} broke off its first answer: {error}.", reason="no_completion") from None
        if completed(answer):
            return asked
        said = said or f"{answer.status} {answer.message()}"
        if answer.status not in _OTHER_WAY:
            break
    hint = "A model for embeddings or another task cannot be asked here." if answer.status in _OTHER_WAY else ""
    raise EngineFailed(f"{kind.title} lists {model} and completes nothing: {said}", reason="no_completion", hint=hint)


def completed(answer: Answer) -> bool:
    """Whether an answer is a completion."""
    return answer.status == 200 and bool(answer.json().get("choices"))


def wedged(title: str, limit_s: float) -> EngineWedged:
    """Return the error for an engine that lives and completes nothing."""
    return EngineWedged(
        f"{title} is wedged: it says that it is healthy and did not complete one token within {limit_s:g} s.",
        reason="wedged",
        hint="Stop it and start it again; if it happens again, its log and its version are where to look.",
    )
