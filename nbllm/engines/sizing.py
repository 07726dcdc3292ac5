"""Does a model fit? Arithmetic on its config.json, without reading a file or asking a GPU.

    weights + max_num_tokens x KV per token + overhead  <=  utilisation x memory
    KV per token = 2 x layers x kv_heads x head_dim x bytes          (keys and values; one latent for MLA models)

Overhead: 1-2 GB a GPU are taken by CUDA, the graphs and one forward pass (measured with vLLM; 1.5 GB is counted here).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OVERHEAD_BYTES = 1_500_000_000
UTILISATION = 0.92
"""vLLM's own default since 0.32."""
BLOCK_TOKENS = 16
"""The KV cache is handed out in blocks of so many tokens."""
GB = 1e9
_BYTES = {"float32": 4.0, "float": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0, "fp8": 1.0, "float8": 1.0, "int8": 1.0}
_UNGATED = {"gpt2", "opt", "gpt_neox", "gptj", "bloom", "falcon", "phi", "gpt_bigcode", "starcoder2", "mpt"}
_TIED = {"gpt2", "gemma", "gemma2", "gemma3_text", "bloom", "opt", "gpt_bigcode", "falcon", "mpt"}
"""Models whose configuration leaves out that input and output embeddings are one (the default of their classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What counts for memory. parameters: estimated from the shape. weight_bits: a parameter's, 16 unless quantized.

    kv_values_per_token: numbers kept for each token. positions: the window that the model was trained for, None when unknown.
    """

    parameters: float
    weight_bits: float
    kv_values_per_token: int
    kv_heads: int
    positions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The arithmetic of one launch. Bytes are of all GPUs together. max_model_len: asked for, else the model's own.

    kv_limit_bytes: what the KV cache was limited to, None for all that is left.
    longest_max_model_len: the longest that fits, 0 when not even the weights do. sequences: requests of full length at once.
    """

    weights_bytes: float
    weights_exact: bool
    kv_bytes_per_token: float
    overhead_bytes: float
    memory_bytes: float
    memory_name: str
    utilisation: float
    max_model_len: int | None
    positions: int | None
    kv_limit_bytes: float | None = None

    @property
    def room_bytes(self) -> float:
        """What the engine may take."""
        return self.memory_bytes * self.utilisation

    @property
    def left_bytes(self) -> float:
        """What weights and overhead leave; negative when they alone are too much."""
        return self.room_bytes - self.weights_bytes - self.overhead_bytes

    @property
    def limit_too_large(self) -> bool:
        """Whether the KV cache was given a size that is not there."""
        return self.kv_limit_bytes is not None and self.kv_limit_bytes > self.left_bytes

    @property
    def kv_room_bytes(self) -> float:
        """What is left for the KV cache; negative when the weights alone are too much."""
        return self.left_bytes if self.kv_limit_bytes is None else min(self.left_bytes, self.kv_limit_bytes)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        if self.kv_room_bytes <= 0:
            return 0
        return int(self.kv_room_bytes // (self.kv_bytes_per_token * BLOCK_TOKENS)) * BLOCK_TOKENS

    @property
    def longest_max_model_len(self) -> int:
        """The longest max-model-len that fits, at most the model's own window."""
        return self.kv_tokens if self.positions is None else min(self.kv_tokens, self.positions)

    @property
    def sequences(self) -> float | None:
        """How many requests of full length fit at once, None when the length is unknown."""
        return self.kv_tokens / self.max_model_len if self.max_model_len else None

    @property
    def fits(self) -> bool:
        """Whether one request of full length fits, and the KV cache in the size that it was given."""
        return self.kv_tokens >= max(BLOCK_TOKENS, self.max_model_len or 0) and not self.limit_too_large

    def rows(self) -> list[tuple[str, str]]:
        """Return the arithmetic as a small table: what, and how much."""
        per_token = self.kv_bytes_per_token
        length = f"{self.max_model_len:,} tokens" if self.max_model_len else "unknown"
        sequences = "unknown" if self.sequences is None else f"{math.floor(self.sequences * 10) / 10:,.1f}"
        return [
            ("memory", f"{self.memory_name}, {gb(self.memory_bytes)}"),
            ("the engine may take", f"{gb(self.room_bytes)} ({self.utilisation:.0%})"),
            ("weights", ("" if self.weights_exact else "~") + gb(self.weights_bytes)),
            ("overhead", f"~{gb(self.overhead_bytes)}"),
            ("left for the KV cache", gb(max(0.0, self.kv_room_bytes))),
            ("KV per token", f"{per_token / 1000:,.1f} kB, room for {self.kv_tokens:,} tokens"),
            ("max-model-len", length),
            ("requests of that length at once", sequences),
            ("longest max-model-len that fits", f"{self.longest_max_model_len:,} tokens" if self.longest_max_model_len else "none"),
        ]

    def table(self) -> str:
        """Return the rows as text."""
        rows = self.rows()
        width = max(len(head) for head, _ in rows)
        return "\n".join(f"{head:<{width}}  {text}" for head, text in rows)


def gb(size_bytes: float) -> str:
    """Return bytes as GB (10^9), or MB below one."""
    return f"{size_bytes / GB:,.1f} GB" if size_bytes >= GB else f"{size_bytes / 1e6:,.0f} MB"


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the shape that a config.json describes, None when it lacks what the arithmetic needs."""
    text = config.get("text_config")
    if isinstance(text, Mapping):  # models that see or hear keep their language model's shape there
        config = {**config, **text}
    hidden = _count(config, "hidden_size", "n_embd", "d_model")
    layers = _count(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _count(config, "num_attention_heads", "n_head", "n_heads")
    vocabulary = _count(config, "vocab_size")
    if not (hidden and layers and heads and vocabulary) or hidden < heads:
        return None
    kv_heads = _count(config, "num_key_value_heads", "num_kv_heads") or (1 if config.get("multi_query") is True else heads)
    head_dim = _count(config, "head_dim") or hidden // heads
    return ModelShape(
        parameters=_embeddings(config, vocabulary, hidden) + layers * _layer(config, hidden, heads, kv_heads, head_dim),
        weight_bits=_weight_bits(config),
        kv_values_per_token=layers * _kv_values(config, kv_heads, head_dim),
        kv_heads=kv_heads,
        positions=_count(config, "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    )


def size(
    shape: ModelShape,
    *,
    memory_bytes: float,
    memory_name: str,
    weights_bytes: float | None = None,
    dtype: str | None = None,
    kv_dtype: str | None = None,
    weight_bits: float | None = None,
    utilisation: float | None = None,
    max_model_len: int | None = None,
    kv_limit_bytes: float | None = None,
    gpus: int = 1,
) -> Sizing:
    """Return the arithmetic for a shape on some memory.

    memory_bytes: of all GPUs that share the model. weights_bytes: as they lie on disk, None: estimated from the shape. dtype,
    kv_dtype: number formats of the engine's options; weights that are quantized, or written in 32 bits and loaded in 16, count as
    loaded. gpus: how many share the model; each pays the overhead, and KV heads that cannot be divided are repeated.
    """
    bits = weight_bits or shape.weight_bits
    if dtype in {"float32", "float"}:
        bits = max(bits, 32.0)
    estimated = shape.parameters * bits / 8
    exact = weights_bytes is not None and weights_bytes <= estimated * 1.3
    weights = weights_bytes if weights_bytes is not None and exact else estimated
    kv_bytes = _BYTES.get((kv_dtype or "auto").split("_")[0], _BYTES.get(dtype or "auto", 2.0))
    repeated = max(1.0, gpus / shape.kv_heads)
    return Sizing(
        weights_bytes=weights,
        weights_exact=exact,
        kv_bytes_per_token=shape.kv_values_per_token * kv_bytes * repeated,
        overhead_bytes=OVERHEAD_BYTES * gpus,
        memory_bytes=memory_bytes,
        memory_name=memory_name,
        utilisation=UTILISATION if utilisation is None else utilisation,
        max_model_len=max_model_len or shape.positions,
        positions=shape.positions,
        kv_limit_bytes=kv_limit_bytes,
    )


def _count(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40:
            return value
    return None


def _embeddings(config: Mapping[str, Any], vocabulary: int, hidden: int) -> int:
    tied = config.get("tie_word_embeddings", str(config.get("model_type")) in _TIED)
    return vocabulary * hidden * (1 if tied else 2)


def _layer(config: Mapping[str, Any], hidden: int, heads: int, kv_heads: int, head_dim: int) -> float:
    """Return the parameters of one layer: attention, feed-forward (gated: three matrices, else two) or experts, norms."""
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    inner = _count(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * hidden
    matrices = 2 if str(config.get("model_type")) in _UNGATED else 3
    experts = _count(config, "num_local_experts", "num_experts", "n_routed_experts")
    if experts:
        inner = _count(config, "moe_intermediate_size") or inner
        shared = _count(config, "n_shared_experts") or 0
        return attention + matrices * hidden * inner * (experts + shared) + hidden * experts + 2 * hidden
    return attention + matrices * hidden * inner + 2 * hidden


def _kv_values(config: Mapping[str, Any], kv_heads: int, head_dim: int) -> int:
    latent = _count(config, "kv_lora_rank")
    if latent:  # multi-head latent attention keeps one compressed vector and the rotary part
        return latent + (_count(config, "qk_rope_head_dim") or 0)
    return 2 * kv_heads * head_dim


def _weight_bits(config: Mapping[str, Any]) -> float:
    """Return the bits of a parameter in the engine's memory: weights of 32 bits are loaded in 16 unless told otherwise."""
    quantized = config.get("quantization_config")
    if isinstance(quantized, Mapping):
        bits = quantized.get("bits", quantized.get("w_bit"))
        if isinstance(bits, int) and 1 <= bits <= 16:
            return float(bits)
        method = str(quantized.get("quant_method", "")).casefold()
        if quantized.get("load_in_4bit") is True or "mxfp4" in method:
            return 4.5
        if quantized.get("load_in_8bit") is True or "fp8" in method:
            return 8.0
    return 16.0
