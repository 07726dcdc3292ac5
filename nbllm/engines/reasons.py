"""Why an engine did not start, from its own last words.

An engine of several processes writes a traceback for each of them: the cause is in the first, and the last says only that there is
one. So the last lines count, and before them those that report an error.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN_LINES = 4
_SHOWN_CHARS = 240
_LAST_LINES = 40
_CHATTER = re.compile(
    r"^.{0,60}?\b(?:TRACE|DEBUG|INFO|WARN|WARNING)\b|^\s*(?:raise\b|File \")"
    r"|See (?:root cause|stack trace) (?:\(?above|for root cause)"
)
"""Lines that report no error, name many options, and would be mistaken for a reason; and those that only point at one."""
_ERROR = re.compile(r"\b(?:\w*(?:Error|Exception)|ERROR|error|CRITICAL|FATAL|[Ff]atal)\b")
_THROWN = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit)\b(?:: |$)")
_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:(?:ERROR|CRITICAL) [\d: -]+\[[^\]]*\] ?)?")
"""What vLLM writes before each line of a process: the same error of two processes is one."""


@dataclass(frozen=True, slots=True)
class Reason:
    """code: a word for programs. said: in words. how: the exit code, in brackets. lines: the engine's own, the telling ones.

    hint: what to do.
    """

    code: str
    said: str
    how: str
    lines: tuple[str, ...]
    hint: str


_KNOWN: tuple[tuple[str, str, str, str], ...] = (
    (
        "port_taken",
        r"address already in use|EADDRINUSE|only one usage of each socket address|couldn'?t bind|failed to bind",
        "its port is taken",
        "Leave --port out for a free one, or end what listens there.",
    ),
    (
        "out_of_memory",
        r"less than desired (?:GPU|CPU) memory utilization|Available memory on node .{0,60} less than (?:requested|desired)",
        "less memory is free than it would take",
        "Use a smaller --gpu-memory-utilization (a share of all memory, on a CPU too) or --cpu-kvcache-gb, or free some.",
    ),
    (
        "out_of_memory",
        (
            r"out of memory|OutOfMemoryError|No available memory for the cache blocks"
            r"|cudaMalloc failed|failed to allocate|Cannot allocate memory|std::bad_alloc"
        ),
        "it ran out of memory",
        "Use a smaller --max-model-len or --max-num-seqs, --quantization, more GPUs (--tensor-parallel-size), or a smaller model.",
    ),
    (
        "too_long",
        r"max_model_len.{0,80}(?:greater|larger) than|larger than the maximum number of tokens|KV cache is needed, which is larger",
        "max-model-len is too long",
        "Use a smaller --max-model-len.",
    ),
    (
        "trust_remote_code",
        r"trust[_-]remote[_-]code",
        "the model brings code of its own",
        "If you trust who made it, start it with --trust-remote-code.",
    ),
    (
        "gated",
        r"gated repo|401 Client Error|403 Client Error|awaiting a review",
        "the model is not open to everybody",
        "Accept its licence on the hub and set HF_TOKEN.",
    ),
    (
        "no_gpu",
        r"Failed to infer device type|No CUDA GPUs are available|libcuda\.so|no NVIDIA driver|Torch not compiled with CUDA",
        "it found no GPU that it can use",
        "Look at the driver with nvidia-smi; on a machine without GPU use a CPU build, llama-server or Ollama.",
    ),
    (
        "no_such_model",
        (
            r"not a valid model identifier|Repository Not Found|RepositoryNotFound|Invalid repository ID|does not appear to have a"
            r"|LocalEntryNotFound|couldn'?t connect to .{0,60}huggingface|failed to (?:load|open) (?:model|GGUF)"
            r"|error loading model|model .{0,200}not found"
        ),
        "it did not find the model",
        "Look at the model's name; without a network the model must be on this machine.",
    ),
    (
        "bad_option",
        r"unrecognized arguments|invalid choice|error: argument|unknown argument|invalid argument",
        "it does not know one of the options",
        "Its version may be another one than these options are for.",
    ),
    (
        "incomplete",
        r"No module named|ImportError|cannot import name|PackageNotFoundError",
        "its installation is incomplete",
        "Install it anew, in an environment of its own.",
    ),
)
"""Code, what its log says (case does not count), words for people, what to do. The first that fits counts."""


def reason_of(lines: Iterable[str], exit_code: int | None) -> Reason:
    """Return why an engine ended. lines: its log, as much of it as there is. exit_code: negative for a signal, None if unknown."""
    tail, how = _telling(list(lines)), _how(exit_code)
    for code, pattern, said, hint in _KNOWN:
        found = [line for line in tail if re.search(pattern, line, re.IGNORECASE)]
        if found:
            return Reason(code, said, how, _few(found), hint)
    if exit_code == -9:
        return Reason("killed", "the system killed it", how, _few(tail), "Often that is memory: look at the system's log (dmesg).")
    thrown = [line for line in tail if _THROWN.search(line)]
    return Reason("unknown", "it ended", how, _few(thrown or [line for line in tail if _ERROR.search(line)] or tail), "")


def _telling(lines: list[str]) -> list[str]:
    """Return the last lines, and those before them that report an error, without chatter and what stands before each."""
    near = max(0, len(lines) - _LAST_LINES)
    stripped = [_PREFIX.sub("", line) for line in lines]
    kept = [text for at, text in enumerate(stripped) if (at >= near or _ERROR.search(lines[at])) and not _CHATTER.search(lines[at])]
    # Where nothing but chatter is left, it is better than nothing.
    return [text for text in kept if not _CHATTER.search(text)] or stripped[near:]


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    if exit_code >= 0:
        return f" (exit code {exit_code})"
    try:
        return f" (ended by {signal.Signals(-exit_code).name})"
    except ValueError:
        return f" (ended by signal {-exit_code})"


def _few(lines: list[str]) -> tuple[str, ...]:
    """Return the last few lines, the same said twice once, each cut to a readable length."""
    kept = list(dict.fromkeys(line.strip() for line in lines if line.strip()))[-_SHOWN_LINES:]
    return tuple(line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…" for line in kept)
