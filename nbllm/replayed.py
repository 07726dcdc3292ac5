"""A provider that answers what was recorded: how a flow's recorded run is run again, at no cost and without network."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nbllm.core.accumulator import fragments_of
from nbllm.core.messages import Chat, Content, Delta, Embed, Ending, Request
from nbllm.core.ports import Wire
from nbllm.core.recorded import asked_in
from nbllm.redaction import redact
from nbllm.testing import FakeProvider, Script

_WHOLE = ("stop", "tool_calls")


def plain_json(value: Any) -> Any:
    """Return a value as it is after a way through JSON."""
    return json.loads(json.dumps(value, default=str))


def question_of(asked: Mapping[str, Any] | Content) -> str:
    """Return what a call asks, messages or texts to embed, as recordings keep it: redacted, as one JSON text to be compared."""
    if isinstance(asked, Chat):
        question: Any = [dict(message) for message in asked.messages]
    elif isinstance(asked, Embed):
        question = {"texts": list(asked.texts)}
    else:
        question = asked_in(asked)
    return redact(json.dumps(question, sort_keys=True, default=str))


class RecordedAnswers(FakeProvider):
    """Answers what was recorded for the same question, else for the call of that number in the run, else "ok"; costs nothing.

    A question that the run asked several times gets its answers in their order. used: recorded calls outside of the run that were
    asked: a %%llm cell that was asked once for the whole notebook, a service asks in each run.
    """

    def __init__(self) -> None:
        super().__init__(default=self._answer)
        self.used: list[Mapping[str, Any]] = []
        self._calls: Mapping[str, Sequence[Mapping[str, Any]]] = {}
        self._chats: Sequence[Mapping[str, Any]] = ()
        self._around: Mapping[str, Mapping[str, Any]] = {}
        self._vectors: dict[str, tuple[float, ...]] = {}
        self._asked: Counter[str] = Counter()
        self._chats_asked = 0

    def begin(self, calls: Sequence[Mapping[str, Any]], around: Sequence[Mapping[str, Any]] = ()) -> None:
        """From here on answer for a run. calls: its own; around: those outside of flows; both as core.recorded.retold has them."""
        by_question: dict[str, list[Mapping[str, Any]]] = {}
        for call in calls:
            by_question.setdefault(question_of(_prompt(call)), []).append(call)
        self._calls, self._around = by_question, {question_of(_prompt(call)): call for call in around}
        self._chats = [call for call in calls if "texts" not in _prompt(call)]
        self._vectors = {redact(text): vector for call in calls for text, vector in _embedded(call)}
        self._asked.clear()
        self._chats_asked = 0
        self.requests.clear()
        self.used = []

    def rung_of(self, request: Request, nth: int = 0) -> str | None:
        """Return the model that answered this question when it was asked for the nth time of the recorded run, from 0."""
        same = self._calls.get(question_of(request.content), ())
        found = same[min(nth, len(same) - 1)] if same else {}
        return _rung(found) or None

    def _answer(self, wire: Wire) -> Script | str:
        question = question_of(wire.content)
        if isinstance(wire.content, Embed):
            return self._embedding(wire.content.texts)
        same = self._calls.get(question, ())
        if not same and question in self._around:
            self.used.append(self._around[question])
            return _script(self._around[question])
        nth, number = self._asked[question], self._chats_asked
        self._asked[question] += 1
        self._chats_asked += 1
        of_model = [call for call in same if _rung(call) == wire.rung.id] or same
        if of_model:
            return _script(of_model[min(nth, len(of_model) - 1)])
        return _script(self._chats[number]) if number < len(self._chats) else "ok"

    def _embedding(self, texts: Sequence[str]) -> Script | str:
        found = [self._vectors.get(redact(text)) for text in texts]
        vectors = tuple(vector for vector in found if vector is not None)
        if len(vectors) == len(found):
            return Script(then=Ending(finish_reason="stop", vectors=vectors))
        return "ok"  # a vector of its own for each text


def _prompt(call: Mapping[str, Any]) -> Mapping[str, Any]:
    prompt: Mapping[str, Any] = call.get("prompt") or call  # older exports have the messages beside the answer
    return prompt


def _rung(call: Mapping[str, Any]) -> str:
    return str(call.get("rung") or call.get("model") or "")


def _script(call: Mapping[str, Any]) -> Script:
    """Return a recorded answer as it came: text, reasoning, log probabilities, tool calls, and how it ended."""
    text, calls, finish = str(call.get("text") or ""), call.get("tool_calls") or (), call.get("finish_reason")
    said = Delta(text=text, reasoning=str(call.get("reasoning") or ""), logprobs=tuple(call.get("logprobs") or ()))
    if not text and not calls:
        said = Delta(text="ok")
    pieces = [said, *(Delta(tool_call=fragment) for fragment in fragments_of(calls))]
    return Script(pieces=pieces, then=Ending(finish_reason=finish) if finish and finish not in _WHOLE else None)


def _embedded(call: Mapping[str, Any]) -> list[tuple[str, tuple[float, ...]]]:
    """Return the texts of an embedding with their vectors; none where the vectors are not kept, or damaged."""
    texts = _prompt(call).get("texts") or ()
    if not texts or "vectors" not in call:
        return []
    import numpy as np

    try:
        flat = np.frombuffer(base64.b64decode(call["vectors"], validate=True), dtype="<f4")
        rows = flat.reshape(len(texts), -1)
    except ValueError:
        return []
    return [(text, tuple(map(float, row))) for text, row in zip(texts, rows, strict=True)]
