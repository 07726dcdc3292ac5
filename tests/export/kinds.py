"""Notebooks whose flows go on with answers of every kind, and what a session keeps of their runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nbllm
from nbllm import errors
from nbllm.core.messages import Delta, Ending, ToolCallFragment
from nbllm.core.ports import Recording
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client
from tests.export.making import HEAD, run


def recorded(
    tmp_path: Path, sources: Sequence[str], *runs: tuple[str, ...], flow: str = "f", answers: FakeProvider | None = None
) -> list[Recording]:
    """What a session kept of these runs of a notebook's flow; one that fails is one that the user saw fail."""
    code = "\n".join(sources)
    provider = answers or FakeProvider(default="fine")
    with (
        fake_client(tmp_path / "home", provider, recordings=True, cache="off", model="sim/large", retries=0) as client,
        nbllm.use(client),
    ):
        namespace = run(code)
        for arguments in runs:
            try:
                namespace[flow](*(eval(one, namespace) for one in arguments))  # noqa: S307 - texts of this file
            except (errors.CallFailed, KeyboardInterrupt):
                continue
        return list(client.recordings.newest(100))


AGENT = (
    HEAD,
    """TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}]

@flow
def f(q: str) -> str:
    messages = [{"role": "user", "content": q}]
    for _ in range(3):
        reply = ask(messages, tools=TOOLS)
        messages.append(reply.message)
        calls = reply.message.get("tool_calls") or ()
        if not calls:
            return reply.text
        messages += [{"role": "tool", "tool_call_id": one["id"], "content": one["function"]["arguments"] * 2} for one in calls]
    return str(len(messages))""",
)
SEARCH = (
    "import nbllm\nimport numpy as np\n" + HEAD,
    "DOCS = ['Two years of warranty.', 'Returns within thirty days.', 'We ship to Norway.']",
    """@flow
def f(q: str) -> str:
    vectors = nbllm.embed([*DOCS, q], model="sim/large")
    best = DOCS[int(np.argmax(vectors[:-1] @ vectors[-1]))]
    return ask(f"{best} {q}").text""",
)
TWICE = (
    HEAD,
    """@flow
def f(q: str) -> str:
    first, second = (ask(q, sample=n).text for n in range(2))
    return ask(f"Which is better, {first} or {second}?").text""",
)


def fragment(number: int, arguments: str) -> Delta:
    """A tool call as it comes."""
    return Delta(tool_call=ToolCallFragment(number, f"call-{number}", "stock", arguments))


def tools_answers() -> FakeProvider:
    """Two tool calls at once, then an answer."""
    return FakeProvider((Delta(text="I look. "), fragment(0, '{"a": 1}'), fragment(1, '{"a": 2}')), "Three in stock.")


def search_answers() -> FakeProvider:
    """Vectors of which the last document's is the nearest, as no hash of the texts would have it."""
    vectors = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.6, 0.8), (0.0, 0.5, 0.9))
    return FakeProvider(Ending(finish_reason="stop", vectors=vectors), "Yes.")


REPLAYED: Mapping[str, tuple[Sequence[str], Callable[[], FakeProvider], int]] = {
    "tool calls": (AGENT, tools_answers, 2),
    "embeddings": (SEARCH, search_answers, 2),
    "one question twice": (TWICE, lambda: FakeProvider("red", "blue", "blue"), 3),
}
"""Cells, what the models answer, and how many calls a run makes."""
