"""Does a model fit? Arithmetic on its shape, without reading a file or asking a GPU.

    weights + tokens x KV per token + overhead  <=  utilisation x memory
    KV per token = 2 x layers x kv_heads x head_dim x bytes          (keys and values; one latent for MLA models)

Layers that look back within a window only keep the window and one step's tokens of a request, whatever its length.

Overhead: 1-2 GB a GPU are taken by CUDA, the graphs and one forward pass (measured with vLLM; 1.5 GB is counted here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nbllm.engines.shapes import ModelShape

OVERHEAD_BYTES = 1_500_000_000
UTILISATION = 0.92
"""vLLM's own default since 0.32."""
BLOCK_TOKENS = 16
"""The KV cache is handed out in blocks of so many tokens."""
GB = 1e9
_BYTES = {"float32": 4.0, "float": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0, "fp8": 1.0, "float8": 1.0, "int8": 1.0}
_ANY_TOKENS = 2**40
STEP_TOKENS = 16_384
"""Tokens of one step, which layers with a window keep beside it (vLLM's --max-num-batched-tokens, the largest default)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The arithmetic of one launch. Bytes are of all GPUs together. max_model_len: asked for, else the model's own.

    kv_bytes_per_token: of a request's first window_tokens (None: of all); kv_bytes_beyond: of the tokens after them.
    kv_limit_bytes: what the KV cache was limited to, None for all that is left. longest_max_model_len: the longest that fits, 0
    when not even the weights do. sequences: requests of full length at once.
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
    kv_bytes_beyond: float = 0.0
    window_tokens: int | None = None

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

    def request_bytes(self, tokens: int) -> float:
        """Return what one request of so many tokens keeps."""
        within = tokens if self.window_tokens is None else min(tokens, self.window_tokens)
        return within * self.kv_bytes_per_token + (tokens - within) * self.kv_bytes_beyond

    @property
    def kv_tokens(self) -> int:
        """Tokens of one request that the KV cache holds, in whole blocks: any number for a model that only looks back a window."""
        room = self.kv_room_bytes
        if room <= 0 or not self.kv_bytes_per_token:
            return 0 if room <= 0 else _ANY_TOKENS
        window = self.window_tokens
        if window is None or self.request_bytes(window) >= room:
            return int(room // (self.kv_bytes_per_token * BLOCK_TOKENS)) * BLOCK_TOKENS
        if not self.kv_bytes_beyond:
            return _ANY_TOKENS
        beyond = (room - self.request_bytes(window)) // (self.kv_bytes_beyond * BLOCK_TOKENS)
        return min(_ANY_TOKENS, window + int(beyond) * BLOCK_TOKENS)

    @property
    def longest_max_model_len(self) -> int:
        """The longest max-model-len that fits, at most the model's own window."""
        return self.kv_tokens if self.positions is None else min(self.kv_tokens, self.positions)

    @property
    def sequences(self) -> float | None:
        """How many requests of full length fit at once (vLLM's log: maximum concurrency), None when the length is unknown."""
        if not self.max_model_len:
            return None
        if self.window_tokens is None:
            return self.kv_tokens / self.max_model_len
        return max(0.0, self.kv_room_bytes) / self.request_bytes(self.max_model_len)

    @property
    def fits(self) -> bool:
        """Whether one request of full length fits, and the KV cache in the size that it was given."""
        return self.kv_tokens >= max(BLOCK_TOKENS, self.max_model_len or 0) and not self.limit_too_large

    def rows(self) -> list[tuple[str, str]]:
        """Return the arithmetic as a small table: what, and how much."""
        per_token = self.kv_bytes_per_token
        beyond = (
            "" if self.window_tokens is None else f", {self.kv_bytes_beyond / 1000:,.1f} kB after the first {self.window_tokens:,}"
        )
        room = "any number of" if self.kv_tokens == _ANY_TOKENS else f"{self.kv_tokens:,}"
        length = f"{self.max_model_len:,} tokens" if self.max_model_len else "unknown"
        sequences = "unknown" if self.sequences is None else f"{math.floor(self.sequences * 10) / 10:,.1f}"
        return [
            ("memory", f"{self.memory_name}, {gb(self.memory_bytes)}"),
            ("the engine may take", f"{gb(self.room_bytes)} ({self.utilisation:.0%})"),
            ("weights", ("" if self.weights_exact else "~") + gb(self.weights_bytes)),
            ("overhead", f"~{gb(self.overhead_bytes)}"),
            ("left for the KV cache", gb(max(0.0, self.kv_room_bytes))),
            ("KV per token", f"{per_token / 1000:,.1f} kB{beyond}, room for {room} tokens"),
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
    sharing_layers: int | None = None,
) -> Sizing:
    """Return the arithmetic for a shape on some memory.

    memory_bytes: of all GPUs that share the model. weights_bytes: as they lie on disk, None: estimated from the shape. dtype,
    kv_dtype: number formats of the engine's options; weight_bits: those of its quantization. Weights that are quantized while they
    load, or written in 32 bits and loaded in 16, count as loaded. gpus: how many share the model; each pays the overhead.
    sharing_layers: how many of them share each layer: KV heads that cannot be divided among these are repeated.
    """
    estimated = _weights_bytes(shape, dtype, weight_bits)
    exact = weights_bytes is not None and weights_bytes <= estimated * 1.3
    weights = weights_bytes if weights_bytes is not None and exact else estimated
    kv_bytes = _BYTES.get((kv_dtype or "auto").split("_")[0], _BYTES.get(dtype or "auto", 2.0))
    kv_bytes *= max(1.0, (gpus if sharing_layers is None else sharing_layers) / shape.kv_heads)
    return Sizing(
        weights_bytes=weights,
        weights_exact=exact,
        kv_bytes_per_token=shape.kv_values_per_token * kv_bytes,
        overhead_bytes=OVERHEAD_BYTES * gpus,
        memory_bytes=memory_bytes,
        memory_name=memory_name,
        utilisation=UTILISATION if utilisation is None else utilisation,
        max_model_len=max_model_len or shape.positions,
        positions=shape.positions,
        kv_limit_bytes=kv_limit_bytes,
        kv_bytes_beyond=(shape.kv_values_per_token - shape.window_values_per_token) * kv_bytes,
        window_tokens=None if shape.window_tokens is None else shape.window_tokens + STEP_TOKENS,
    )


def _weights_bytes(shape: ModelShape, dtype: str | None, weight_bits: float | None) -> float:
    """Return what the weights take in memory: layers as they are quantized, the rest as wide as the number format."""
    wide = 32.0 if dtype in {"float32", "float"} else 16.0
    bits = min(shape.weight_bits, weight_bits or 16.0)
    return (shape.layer_parameters * (bits if bits < 16.0 else wide) + shape.plain_parameters * wide) / 8
