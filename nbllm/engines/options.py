"""Options of engines: an allow-list with types. What is not on it is refused, so that no value becomes another argument.

An option's value is checked as a setting's is (nbllm.settings.option) and becomes exactly one word of the argument list, or one
variable, that the row of the table names. A text may not begin with a dash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbllm.engines.catalog import EngineKind
from nbllm.engines.model_files import local
from nbllm.errors import EngineNotPossible
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


OPTIONS: Mapping[str, EngineOption] = {
    row.name: row
    for row in (
        EngineOption(
            option=_number("max_model_len", "Longest prompt and answer together, in tokens.", 1, 100_000_000),
            spelled={"vllm": "--max-model-len", "sglang": "--context-length", "llama-server": "--ctx-size",
                     "ollama": "$OLLAMA_CONTEXT_LENGTH"},
        ),
        EngineOption(
            option=_share("gpu_memory_utilization", "Share of the GPU's memory that the engine may take (vLLM: 0.92)."),
            spelled={"vllm": "--gpu-memory-utilization", "sglang": "--mem-fraction-static"},
        ),
        EngineOption(
            option=_number("max_num_seqs", "Requests worked on at once.", 1, 100_000),
            spelled={"vllm": "--max-num-seqs", "sglang": "--max-running-requests", "llama-server": "--parallel",
                     "ollama": "$OLLAMA_NUM_PARALLEL", "sim-server": "--max-num-seqs"},
        ),
        EngineOption(
            option=_number("max_num_batched_tokens", "Tokens worked on in one step.", 1, 10_000_000),
            spelled={"vllm": "--max-num-batched-tokens"},
        ),
        EngineOption(
            option=_choice("dtype", "Number format of the weights.", "auto", "half", "float16", "bfloat16", "float", "float32"),
            spelled={"vllm": "--dtype", "sglang": "--dtype"}, answers=True,
        ),
        EngineOption(
            option=_text("quantization", "How the weights are quantized: awq, gptq, fp8, bitsandbytes ..."),
            spelled={"vllm": "--quantization", "sglang": "--quantization"}, answers=True, check=word,
        ),
        EngineOption(
            option=_text("kv_cache_dtype", "Number format of the KV cache: auto, fp8 ..."),
            spelled={"vllm": "--kv-cache-dtype", "sglang": "--kv-cache-dtype", "ollama": "$OLLAMA_KV_CACHE_TYPE"},
            answers=True, check=word,
        ),
        EngineOption(
            option=_switch("enable_prefix_caching", "Keep the KV cache of prompts that begin alike (vLLM: on)."),
            spelled={"vllm": "--enable-prefix-caching|--no-enable-prefix-caching", "sglang": "|--disable-radix-cache"},
        ),
        EngineOption(
            option=_switch("enable_chunked_prefill", "Mix long prompts into the steps of others."),
            spelled={"vllm": "--enable-chunked-prefill|--no-enable-chunked-prefill"},
        ),
        EngineOption(
            option=Option(name="speculative_config", kind="mapping", default=None,
                          help='Speculative decoding, as JSON: {"method": "ngram", "num_speculative_tokens": 3}.'),
            spelled={"vllm": "--speculative-config"}, answers=True, check=_speculation,
        ),
        EngineOption(
            option=_text("draft_model", "File of a small model for speculative decoding."),
            spelled={"llama-server": "--model-draft"}, answers=True, check=_file,
        ),
        EngineOption(
            option=_number("tensor_parallel_size", "GPUs that share each layer.", 1, 1024),
            spelled={"vllm": "--tensor-parallel-size", "sglang": "--tp-size"},
        ),
        EngineOption(
            option=_number("pipeline_parallel_size", "GPUs that share the layers, one after the other.", 1, 1024),
            spelled={"vllm": "--pipeline-parallel-size", "sglang": "--pp-size"},
        ),
        EngineOption(
            option=_switch("enable_lora", "Serve LoRA adapters."),
            spelled={"vllm": "--enable-lora|", "sglang": "--enable-lora|"},
        ),
        EngineOption(
            option=_text("lora_modules", "An adapter, NAME=PATH; asked for as ENDPOINT/NAME."),
            spelled={"vllm": "--lora-modules", "sglang": "--lora-paths"}, answers=True, check=_lora,
        ),
        EngineOption(
            option=_number("max_lora_rank", "Largest rank of an adapter.", 1, 4096),
            spelled={"vllm": "--max-lora-rank", "sglang": "--max-lora-rank"},
        ),
        EngineOption(
            option=_text("revision", "Branch, tag or commit of the model."),
            spelled={"vllm": "--revision", "sglang": "--revision"}, answers=True, check=word,
        ),
        EngineOption(
            option=_text("chat_template", "File of the chat template."),
            spelled={"vllm": "--chat-template", "sglang": "--chat-template", "llama-server": "--chat-template-file"},
            answers=True, check=_file,
        ),
        EngineOption(
            option=_text("reasoning_parser", "How reasoning is told from the answer: deepseek_r1, qwen3 ..."),
            spelled={"vllm": "--reasoning-parser", "sglang": "--reasoning-parser"}, answers=True, check=word,
        ),
        EngineOption(
            option=_text("tool_call_parser", "How tool calls are read: hermes, llama3_json, mistral ..."),
            spelled={"vllm": "--tool-call-parser", "sglang": "--tool-call-parser"}, answers=True, check=word,
        ),
        EngineOption(
            option=_switch("enable_auto_tool_choice", "Let the model decide to call tools."),
            spelled={"vllm": "--enable-auto-tool-choice|"}, answers=True,
        ),
        EngineOption(
            option=_number("seed", "The engine's own seed.", 0, 2**31 - 1),
            spelled={"vllm": "--seed", "sglang": "--random-seed", "llama-server": "--seed"}, answers=True,
        ),
        EngineOption(
            option=_switch("enforce_eager", "No CUDA graphs: starts sooner, answers slower."), spelled={"vllm": "--enforce-eager|"},
        ),
        EngineOption(
            option=_number("cpu_kvcache_gb", "vLLM's CPU build: memory of the KV cache, in GB.", 1, 100_000),
            spelled={"vllm": "$VLLM_CPU_KVCACHE_SPACE"},
        ),
        EngineOption(
            option=_number("n_gpu_layers", "Layers that go to the GPU.", 0, 10_000), spelled={"llama-server": "--n-gpu-layers"},
        ),
        EngineOption(option=_number("threads", "Processor threads.", 1, 4096), spelled={"llama-server": "--threads"}),
        EngineOption(
            option=_switch("offline", "Use what is on this machine already; download nothing."),
            spelled={"vllm": "$HF_HUB_OFFLINE", "sglang": "$HF_HUB_OFFLINE", "llama-server": "--offline|"},
        ),
        EngineOption(
            option=_switch("trust_remote_code", "Run Python code that comes with the model. Only for models that you trust."),
            spelled={"vllm": "--trust-remote-code|", "sglang": "--trust-remote-code|"}, answers=True,
        ),
    )
}  # fmt: skip
"""By name."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Options of one launch: as checked values, as words of the argument list, as variables, and those that change answers."""

    values: Mapping[str, Any]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    answers: Mapping[str, Any]


def options_of(kind: EngineKind) -> list[EngineOption]:
    """Return the options that an engine takes."""
    return [row for row in OPTIONS.values() if kind.name in row.spelled]


def choose(kind: EngineKind, given: Mapping[str, Any]) -> Chosen:
    """Check options. Text is read as a person writes it ("4096", "true"). Raises EngineNotPossible; nothing is started then."""
    values: dict[str, Any] = {}
    words: list[str] = []
    environment: dict[str, str] = {}
    answers: dict[str, Any] = {}
    for asked, value in given.items():
        row = _row(kind, asked, [one.name for one in options_of(kind)])
        try:
            checked = row.option.parse(value) if isinstance(value, str) else row.option.value(value)
            if checked is None:
                continue
            text = row.check(row.name, checked) if row.check else _plain(checked)
        except BadValue as error:
            raise EngineNotPossible(f"{error.problem}. Nothing was started.", hint=error.hint or row.option.help) from None
        if row.name in values:
            raise EngineNotPossible(f"{row.name} is given twice. Nothing was started.")
        values[row.name] = checked
        if row.answers:
            answers[row.name] = text
        spelled = row.spelled[kind.name]
        if spelled.startswith("$"):
            environment[spelled[1:]] = {"true": "1", "false": "0"}.get(text, text)
        elif row.option.kind == "flag":
            yes, _, no = spelled.partition("|")
            words += [flag for flag in ([yes] if checked else [no]) if flag]
        else:
            words += [spelled, text]
    return Chosen(values, tuple(words), environment, answers)


def _row(kind: EngineKind, asked: str, known: Iterable[str]) -> EngineOption:
    name = asked.strip().removeprefix("--").replace("-", "_")
    row = OPTIONS.get(name)
    if row is not None and kind.name in row.spelled:
        return row
    elsewhere = f" ({', '.join(sorted(row.spelled))} has it.)" if row is not None else ""
    raise EngineNotPossible(
        f"{kind.title} has no option {asked!r:.80} here.{elsewhere} Nothing was started.", hint=did_you_mean(name, known, limit=40)
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
