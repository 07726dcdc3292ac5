"""What the simulated model answers to one chat request: text, reasoning, tool calls, why it ends, and how many tokens that is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from nbllm.core.messages import Chat, Usage
from nbllm.core.pricing import estimate_tokens
from nbllm.providers.sim_options import SimOptions
from nbllm.providers.sim_pace import reasoning_for, tokens
from nbllm.providers.sim_reading import message_text, read, split, stems
from nbllm.providers.sim_text import compose

MESSAGE_TOKENS = 4
"""What a chat template puts around a message, about."""
IMAGE_TOKENS = 85


@dataclass(frozen=True, slots=True)
class SimAnswer:
    """One answer. tool_calls: (id, name, arguments as JSON). finish_reason in OpenAI's words."""

    text: str
    reasoning: str = ""
    tool_calls: tuple[tuple[str, str, str], ...] = ()
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)


def seed_of(chat: Chat, options: SimOptions) -> str:
    """Return what all randomness of an answer starts from: the model, its seed, the prompt and what shapes the text.

    Limits (max_tokens, stop, logprobs) are left out: asking for fewer tokens gives the beginning of the same answer.
    """
    parts = (options.model.name, options.seed, chat.messages, chat.temperature, chat.top_p, chat.seed, chat.tools)
    shape = (chat.response_format, chat.json_schema, chat.extra, chat.sample)
    canonical = json.dumps([*parts, *shape], sort_keys=True, default=_plain)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def answer(chat: Chat, options: SimOptions, seed: str) -> SimAnswer:
    """Return the whole answer; the same for the same chat, options and seed."""
    random = Random(seed)
    noise = options.model.noise * (1.0 if chat.temperature is None else min(2.0, max(0.0, chat.temperature)))
    calls = _tool_calls(chat, random, noise)
    text = "" if calls else _text(chat, random, noise)
    thought = reasoning_for(chat.messages, text) if _reasoning_asked(chat.extra) else ""
    made = SimAnswer(text, thought, calls, "tool_calls" if calls else "stop")
    limit = min(chat.max_tokens or options.model.max_output_tokens, options.model.max_output_tokens)
    return counted(_limited(_stopped(made, chat.stop or ()), limit), input_tokens(chat))


def counted(made: SimAnswer, sent_tokens: int) -> SimAnswer:
    """Return the answer with its usage: reasoning is part of the output, as OpenAI counts it."""
    thought = len(tokens(made.reasoning))
    calls = sum(len(tokens(name + arguments)) + MESSAGE_TOKENS for _, name, arguments in made.tool_calls)
    output = thought + len(tokens(made.text)) + calls
    return replace(made, usage=Usage(sent_tokens, output, thought or None, 0))


def input_tokens(chat: Chat) -> int:
    """Return the prompt's tokens: texts, what the chat template puts around each message, images, tools and schemas."""
    total = 0
    for message in chat.messages:
        total += MESSAGE_TOKENS + estimate_tokens(message_text(message))
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            total += IMAGE_TOKENS * sum(isinstance(part, Mapping) and part.get("type") == "image_url" for part in content)
        if message.get("tool_calls"):
            total += estimate_tokens(json.dumps(message["tool_calls"], default=_plain))
    for extra in (chat.tools, chat.json_schema, chat.response_format):
        total += estimate_tokens(json.dumps(extra, default=_plain)) if extra else 0
    return total


def schema_of(chat: Chat) -> Mapping[str, Any] | None:
    """Return the JSON Schema that the answer must have, {} for any JSON object, None for plain text."""
    if chat.json_schema is not None:
        return chat.json_schema
    wanted = chat.response_format or {}
    if wanted.get("type") == "json_schema":
        inner = wanted.get("json_schema") or {}
        schema = inner.get("schema", inner) if isinstance(inner, Mapping) else {}
        return schema if isinstance(schema, Mapping) else {}
    return {} if wanted.get("type") == "json_object" else None


def _text(chat: Chat, random: Random, noise: float) -> str:
    schema = schema_of(chat)
    if schema is None:
        return compose(chat.messages, random, noise)
    from nbllm.providers.sim_json import fill

    if not schema:
        named = re.findall(r"[\"`'](\w{1,40})[\"`']", read(chat.messages).instruction)
        schema = {"type": "object", "required": list(dict.fromkeys(named)) or ["answer"]}
    return json.dumps(fill(schema, _material(chat.messages), random, noise=noise), ensure_ascii=False)


def _material(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentences of all messages but the model's own; the last prompt itself when there are none."""
    found: list[str] = []
    for message in messages:
        if message.get("role") != "assistant":
            found += split(message_text(message))[1]
    return "\n".join(found) or (message_text(messages[-1]) if messages else "")


def _tool_calls(chat: Chat, random: Random, noise: float) -> tuple[tuple[str, str, str], ...]:
    """Return the call that the prompt clearly asks for, or none: the last message is a result, or no tool fits it."""
    functions = [tool.get("function") or {} for tool in chat.tools or () if tool.get("type", "function") == "function"]
    functions = [function for function in functions if function.get("name")]
    choice = chat.extra.get("tool_choice", "auto")
    if not functions or choice == "none" or not chat.messages or chat.messages[-1].get("role") == "tool":
        return ()
    asked = message_text(chat.messages[-1])
    if len(asked.split()) > 40:  # a text to work on: only what is asked about it counts
        asked = read(chat.messages).instruction
    ranked = sorted(functions, key=lambda function: -_fitness(function, asked))
    if isinstance(choice, Mapping):
        named = (choice.get("function") or {}).get("name")
        ranked = [function for function in functions if function["name"] == named] or ranked
    elif choice != "required" and _fitness(ranked[0], asked) < 2:
        return ()
    from nbllm.providers.sim_json import fill

    chosen = ranked[0]
    arguments = fill(chosen.get("parameters") or {"type": "object"}, asked, random, noise=noise)
    return ((f"call_{random.getrandbits(64):016x}", str(chosen["name"]), json.dumps(arguments, ensure_ascii=False)),)


def _fitness(function: Mapping[str, Any], asked: str) -> int:
    """Return how well a tool fits: two for each word of its name in the prompt, one for each word of its description."""
    words = set(stems(asked))
    named = set(stems(re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-.]", " ", str(function["name"])))) - {"get", "set", "run", "call", "do"}
    described = set(stems(str(function.get("description", "")))) - named
    return 2 * len(words & named) + len(words & described)


def _reasoning_asked(extra: Mapping[str, Any]) -> bool:
    """Whether the request asks for reasoning in one of the ways that providers know (effort, reasoning, thinking)."""
    if extra.get("reasoning_effort") not in (None, "none", "minimal"):
        return True
    return any(bool(extra.get(key)) for key in ("reasoning", "thinking", "include_reasoning", "enable_thinking"))


def _stopped(made: SimAnswer, stops: Sequence[str]) -> SimAnswer:
    places = [place for stop in stops if stop and (place := made.text.find(stop)) >= 0]
    return replace(made, text=made.text[: min(places)]) if places else made


def _limited(made: SimAnswer, limit: int) -> SimAnswer:
    """Return the answer cut after `limit` tokens, reasoning first, marked as cut; tool calls are cut in their arguments."""
    thought, said = tokens(made.reasoning), tokens(made.text)
    if made.tool_calls:
        call_id, name, arguments = made.tool_calls[0]
        kept = tokens(arguments)
        if len(kept) + MESSAGE_TOKENS + len(tokens(name)) + len(thought) <= limit:
            return made
        shorter = "".join(kept[: max(0, limit - MESSAGE_TOKENS - len(tokens(name)) - len(thought))])
        return replace(made, tool_calls=((call_id, name, shorter),), finish_reason="length")
    if len(thought) + len(said) <= limit:
        return made
    return replace(
        made,
        reasoning="".join(thought[:limit]),
        text="".join(said[: max(0, limit - len(thought))]),
        finish_reason="length",
    )
