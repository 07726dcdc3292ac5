"""How the simulated model cuts text into tokens, how fast they come, and how sure it is of each. All seeded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from nbllm.providers.sim_options import SimOptions

TAIL_SHARE = 0.03
"""Share of requests that wait in a queue somewhere: three to eight times the usual time to the first token."""
_TOKEN = re.compile(r"\s?[^\W\d_]{1,7}|\s?\d{1,3}|\s?[^\w\s]{1,3}|\s+|_", re.UNICODE)


def tokens(text: str) -> list[str]:
    """Return the text's tokens; joined they are the text. About four characters each, as in current vocabularies."""
    return _TOKEN.findall(text)


def first_token_s(options: SimOptions, input_tokens: int, random: Random) -> float:
    """Return the time to the first token in seconds: lognormal (sigma 0.35) around the model's median, plus 1 s for each 25,000
    tokens of prompt, with a heavy tail. Shapes as seen in public latency reports of hosted models; the numbers are invented.
    """
    median = options.model.ttft_s if options.ttft_s is None else options.ttft_s
    wait = median * math.exp(0.35 * options.jitter * random.gauss(0, 1))
    tail = random.uniform(3, 8)
    if random.random() < TAIL_SHARE and options.jitter and options.ttft_s is None:
        wait *= tail
    return wait + (input_tokens / 25_000 if options.ttft_s is None else 0.0)


def gaps_s(options: SimOptions, count: int, random: Random) -> Iterator[float]:
    """Yield the pause before each of `count` tokens, in seconds: one pace per request (lognormal, sigma 0.12), each gap uneven."""
    pace = (options.tok_s or options.model.tok_s) * math.exp(0.12 * options.jitter * random.gauss(0, 1))
    spread = min(1.0, 0.6 * options.jitter)
    for _ in range(count):
        yield random.uniform(1 - spread, 1 + spread) / pace


def logprob(token: str, wanted: bool | int, rivals: Sequence[str], random: Random) -> dict[str, Any]:
    """Return one token's entry in OpenAI's shape. Probabilities of the token and its alternatives add up to less than 1.

    wanted: True, or how many alternatives (`top_logprobs`, at most 20; the token itself is the first of them).
    """
    sure = random.betavariate(6, 1) * 0.98 + 0.01
    entry = _entry(token, sure)
    entry["top_logprobs"] = []
    if wanted is not True and wanted:
        left = 1 - sure
        entry["top_logprobs"].append(_entry(token, sure))
        for rival in [rival for rival in dict.fromkeys(rivals) if rival != token][: int(wanted) - 1]:
            likely = min(left * random.uniform(0.35, 0.6), entry["top_logprobs"][-1]["likely"] * 0.95)
            left -= likely
            entry["top_logprobs"].append(_entry(rival, likely))
        for alternative in entry["top_logprobs"]:
            del alternative["likely"]
    del entry["likely"]
    return entry


def _entry(token: str, likely: float) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": math.log(max(likely, 1e-9)),
        "bytes": list(token.encode("utf-8", "surrogatepass")),
        "likely": likely,
    }


def reasoning_for(messages: Sequence[Mapping[str, Any]], answer: str) -> str:
    """Return a short chain of thought for an answer, in plain words about what was done to get it."""
    from nbllm.providers.sim_reading import keywords, read, shorten

    reading = read(messages)
    asked = shorten(reading.instruction, 16).rstrip(".?! ") or "a text without a question"
    count = len(reading.material)
    steps = [f"The prompt asks: {asked}."]
    if count:
        steps.append(f"There are {count} sentences to draw on, mostly about {', '.join(keywords(reading.text, 3))}.")
        steps.append("I compare what they share with each other and with the question, and keep those that carry most.")
    else:
        steps.append("There is no passage to draw on, so I should say that rather than guess.")
    steps.append(f"The answer then has {len(answer.split())} words.")
    return " ".join(steps)
