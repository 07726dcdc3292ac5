"""The options of engines that are allowed: one row each, with its type and how each engine spells it.

Held by tests/engines_room/test_options.py. How they are checked and put on a command line is in nbllm.engines.options.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.engines.model_files import local
from nbllm.settings.option import BadValue, Option, shown
from nbllm.settings.suggest import did_you_mean

_WORD = re.compile(r"[A-Za-z0-9][\w./:@+-]{0,255}\Z", re.ASCII)
_LORA = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]{0,99})=(?P<path>[^=,\0]{1,1000})\Z", re.ASCII)
_SPECULATION = {
    "method": str,
    "model": str,
    "num_speculative_tokens": int,
    "prompt_lookup_max": int,
    "prompt_lookup_min": int,
    "draft_tensor_parallel_size": int,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOption:
    """One option. spelled: engine -> its flag; "--flag|--no-flag" for a switch with an opposite; "$NAME" for a variable.

    answers: whether it can change what a model answers, and so belongs to the endpoint's identity in cache keys. check: turns the
    checked value into the one word that the engine gets.
    """

    option: Option
    spelled: Mapping[str, str]
    answers: bool = False
    check: Callable[[str, Any], str] | None = None

    @property
    def name(self) -> str:
        """The option's name, with underscores."""
        return self.option.name


def word(name: str, value: Any) -> str:
    """Return a plain word (a method, a revision, a model id); raises BadValue for anything that could be read as something else."""
    if not isinstance(value, str) or not _WORD.match(value):
        raise BadValue(f"{name} must be one plain word (letters, digits, . _ - / : @ +), not {shown(value)}")
    return value


def _file(name: str, value: Any) -> str:
    """Return the absolute path of something that is there: an absolute path does not begin with a dash."""
    path = local(value) if isinstance(value, str) else None
    if path is None:
        raise BadValue(f"{name}: there is no file or folder {shown(value)}")
    return str(path)


def _lora(name: str, value: Any) -> str:
    match = _LORA.match(value) if isinstance(value, str) else None
    if match is None:
        raise BadValue(f"{name} must be NAME=PATH, not {shown(value)}", hint="For example --lora-modules support=adapters/support")
    path = match["path"]
    return f"{match['name']}={_file(name, path) if local(path) else word(name, path)}"


def _speculation(name: str, value: Any) -> str:
    for key, item in value.items():
        wanted = _SPECULATION.get(key)
        if wanted is None:
            raise BadValue(f"{name} has no field {key!r:.60}", hint=did_you_mean(str(key), _SPECULATION))
        if wanted is int and (isinstance(item, bool) or not isinstance(item, int) or not 0 < item < 10_000):
            raise BadValue(f"{name}: {key} must be a whole number above 0, not {shown(item)}")
        if wanted is str:
            word(f"{name}: {key}", item)
    if not value:
        raise BadValue(f"{name} is empty", hint='For example {"method": "ngram", "num_speculative_tokens": 3}.')
    return json.dumps(value, sort_keys=True)


def _number(name: str, help: str, at_least: int, at_most: int) -> Option:  # noqa: A002 - an option's help
    return Option(name=name, kind="integer", default=None, help=help, at_least=at_least, at_most=at_most)


def _text(name: str, help: str) -> Option:  # noqa: A002 - as above
    return Option(name=name, kind="text", default=None, help=help)


def _switch(name: str, help: str) -> Option:  # noqa: A002 - as above
    return Option(name=name, kind="flag", default=None, help=help)


def _share(name: str, help: str) -> Option:  # noqa: A002 - as above
    return Option(name=name, kind="share", default=None, help=help, above=0, at_most=1)


def _choice(name: str, help: str, *choices: str) -> Option:  # noqa: A002 - as above
    return Option(name=name, kind="choice", default=None, help=help, choices=choices)


def _row(
    option: Option, *engines: str, answers: bool = False, check: Callable[[str, Any], str] | None = None, **spelled: str
) -> EngineOption:
    """Return a row. engines: those whose flag is the option's name (a switch without an opposite); spelled: the others, - as _."""
    flag = f"--{option.name.replace('_', '-')}"
    same = dict.fromkeys(engines, f"{flag}|" if option.kind == "flag" else flag)
    others = {engine.replace("_", "-"): text for engine, text in spelled.items()}
    return EngineOption(option=option, spelled={**same, **others}, answers=answers, check=check)


OPTIONS: Mapping[str, EngineOption] = {
    row.name: row
    for row in (
        _row(
            _number("max_model_len", "Longest prompt and answer together, in tokens.", 1, 100_000_000),
            "vllm",
            sglang="--context-length",
            llama_server="--ctx-size",
            ollama="$OLLAMA_CONTEXT_LENGTH",
        ),
        _row(
            _share("gpu_memory_utilization", "Share of the GPU's memory that the engine may take (vLLM: 0.92)."),
            "vllm",
            sglang="--mem-fraction-static",
        ),
        _row(
            _number("max_num_seqs", "Requests worked on at once.", 1, 100_000),
            "vllm",
            "sim-server",
            sglang="--max-running-requests",
            llama_server="--parallel",
            ollama="$OLLAMA_NUM_PARALLEL",
        ),
        _row(_number("max_num_batched_tokens", "Tokens worked on in one step.", 1, 10_000_000), "vllm"),
        _row(
            _choice("dtype", "Number format of the weights.", "auto", "half", "float16", "bfloat16", "float", "float32"),
            "vllm",
            "sglang",
            answers=True,
        ),
        _row(
            _text("quantization", "How the weights are quantized: awq, gptq, fp8, bitsandbytes ..."),
            "vllm",
            "sglang",
            answers=True,
            check=word,
        ),
        _row(
            _text("kv_cache_dtype", "Number format of the KV cache: auto, fp8 ..."),
            "vllm",
            "sglang",
            answers=True,
            check=word,
            ollama="$OLLAMA_KV_CACHE_TYPE",
        ),
        _row(
            _switch("enable_prefix_caching", "Keep the KV cache of prompts that begin alike (vLLM: on)."),
            vllm="--enable-prefix-caching|--no-enable-prefix-caching",
            sglang="|--disable-radix-cache",
        ),
        _row(
            _switch("enable_chunked_prefill", "Mix long prompts into the steps of others."),
            vllm="--enable-chunked-prefill|--no-enable-chunked-prefill",
        ),
        _row(
            Option(
                name="speculative_config",
                kind="mapping",
                default=None,
                help='Speculative decoding, as JSON: {"method": "ngram", "num_speculative_tokens": 3}.',
            ),
            "vllm",
            answers=True,
            check=_speculation,
        ),
        _row(
            _text("draft_model", "File of a small model for speculative decoding."),
            answers=True,
            check=_file,
            llama_server="--model-draft",
        ),
        _row(_number("tensor_parallel_size", "GPUs that share each layer.", 1, 1024), "vllm", sglang="--tp-size"),
        _row(
            _number("pipeline_parallel_size", "GPUs that share the layers, one after the other.", 1, 1024),
            "vllm",
            sglang="--pp-size",
        ),
        _row(_switch("enable_lora", "Serve LoRA adapters."), "vllm", "sglang"),
        _row(
            _text("lora_modules", "An adapter, NAME=PATH; asked for as ENDPOINT/NAME."),
            "vllm",
            answers=True,
            check=_lora,
            sglang="--lora-paths",
        ),
        _row(_number("max_lora_rank", "Largest rank of an adapter.", 1, 4096), "vllm", "sglang"),
        _row(_text("revision", "Branch, tag or commit of the model."), "vllm", "sglang", answers=True, check=word),
        _row(
            _text("chat_template", "File of the chat template."),
            "vllm",
            "sglang",
            answers=True,
            check=_file,
            llama_server="--chat-template-file",
        ),
        _row(
            _text("reasoning_parser", "How reasoning is told from the answer: deepseek_r1, qwen3 ..."),
            "vllm",
            "sglang",
            answers=True,
            check=word,
        ),
        _row(
            _text("tool_call_parser", "How tool calls are read: hermes, llama3_json, mistral ..."),
            "vllm",
            "sglang",
            answers=True,
            check=word,
        ),
        _row(_switch("enable_auto_tool_choice", "Let the model decide to call tools."), "vllm", answers=True),
        _row(_number("seed", "The engine's own seed.", 0, 2**31 - 1), "vllm", "llama-server", answers=True, sglang="--random-seed"),
        _row(_switch("enforce_eager", "No CUDA graphs: starts sooner, answers slower."), "vllm"),
        _row(
            _number("cpu_kvcache_gb", "vLLM's CPU build: memory of the KV cache, in GB.", 1, 100_000),
            vllm="$VLLM_CPU_KVCACHE_SPACE",
        ),
        _row(_number("n_gpu_layers", "Layers that go to the GPU.", 0, 10_000), "llama-server"),
        _row(_number("threads", "Processor threads.", 1, 4096), "llama-server"),
        _row(
            _switch("offline", "Use what is on this machine already; download nothing."),
            "llama-server",
            vllm="$HF_HUB_OFFLINE",
            sglang="$HF_HUB_OFFLINE",
        ),
        _row(
            _switch("trust_remote_code", "Run Python code that comes with the model. Only for models that you trust."),
            "vllm",
            "sglang",
            answers=True,
        ),
    )
}
"""By name."""
