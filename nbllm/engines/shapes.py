"""What of a model's config.json counts for memory: parameters, bits of each, and what every layer keeps of a token.

Held in tests/engines_room/test_shapes.py against numbers that the models' authors have published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UNGATED = {"gpt2", "opt", "gpt_neox", "gptj", "bloom", "falcon", "phi", "gpt_bigcode", "starcoder2", "mpt"}
_TIED = {
    "gpt2", "gemma", "gemma2", "gemma3", "gemma3_text", "bloom", "opt", "gpt_bigcode", "falcon", "mpt", "starcoder2", "cohere",
    "cohere2",
}  # fmt: skip
"""Models whose configuration leaves out that input and output embeddings are one (the default of their classes)."""
_WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}
"""Every so manieth layer looks at everything, the others within a window; where the configuration does not say it itself."""
_WINDOWED = {"sliding_attention", "chunked_attention"}
_STATEFUL = {"linear_attention", "mamba", "mamba2", "recurrent", "conv"}
"""Layers that keep a state of one size, however long the text is."""
_ROPE_STRETCHED = {"linear", "dynamic"}
"""Ways of stretching positions after which a window is max_position_embeddings x factor. YaRN's configurations hold the product
already, and Llama 3's and Gemma 3's too (vLLM's config/model.py has it so)."""
_PLAIN_BITS = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What counts for memory.

    layer_parameters: those that quantization shrinks, of weight_bits each, with the scales of its groups; plain_parameters: the
    embeddings and what else stays in 16 bits. kv_values_per_token: numbers kept for each token; window_values_per_token: how many
    of these belong to layers that forget what is more than window_tokens back. kv_heads: what GPUs that share a layer can divide
    among them: 1 for a latent, which each of them keeps whole. positions: the longest text, None when unknown.
    """

    layer_parameters: float
    plain_parameters: float
    weight_bits: float
    kv_values_per_token: int
    kv_heads: int
    positions: int | None
    window_values_per_token: int = 0
    window_tokens: int | None = None

    @property
    def parameters(self) -> float:
        """All of them, estimated from the shape."""
        return self.layer_parameters + self.plain_parameters


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
    kv_heads = _kv_heads(config, heads)
    head_dim = _count(config, "head_dim") or hidden // heads
    attention = layers * _attention(config, hidden, heads, kv_heads, head_dim)
    embeddings = vocabulary * hidden * (1 if _is_tied(config) else 2)
    only_experts = _quantization(config).get("quant_method") == "mxfp4"
    per_layer = _kv_values(config, kv_heads, head_dim)
    full, windowed = _layers_with_memory(config, layers)
    return ModelShape(
        layer_parameters=_feed_forward(config, hidden, layers) + (0 if only_experts else attention),
        plain_parameters=embeddings + (attention if only_experts else 0),
        weight_bits=_weight_bits(config),
        kv_values_per_token=(full + windowed) * per_layer,
        kv_heads=1 if _count(config, "kv_lora_rank") else kv_heads,
        positions=_positions(config),
        window_values_per_token=windowed * per_layer,
        window_tokens=_window(config) if windowed else None,
    )


def _count(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40:
            return value
    return None


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type", ""))


def _is_tied(config: Mapping[str, Any]) -> bool:
    return bool(config.get("tie_word_embeddings", _kind(config) in _TIED))


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    stated = _count(config, "num_key_value_heads", "num_kv_heads", "multi_query_group_num")
    return stated or (1 if config.get("multi_query") is True else heads)


def _positions(config: Mapping[str, Any]) -> int | None:
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "max_seq_length", "seq_length")
    found = _count(config, *names)
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    if found is None or not isinstance(rope, Mapping):
        return found
    way = rope.get("rope_type", rope.get("type"))
    if way == "longrope":  # what an engine takes when nobody asks for more
        return _count(config, "original_max_position_embeddings") or found
    factor = rope.get("factor")
    if way in _ROPE_STRETCHED and not _kind(config).startswith("gemma3") and isinstance(factor, int | float) and 1 < factor < 1e6:
        return int(found * factor)
    return found


# ---------------------------------------------------------------------------------------------------- parameters


def _attention(config: Mapping[str, Any], hidden: int, heads: int, kv_heads: int, head_dim: int) -> int:
    """Return a layer's parameters of attention and norms; of multi-head latent attention those of its projections (DeepSeek-V2)."""
    latent = _count(config, "kv_lora_rank")
    if not latent:
        return 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim + 2 * hidden
    plain = _count(config, "qk_nope_head_dim") or head_dim
    rotary = _count(config, "qk_rope_head_dim") or 0
    values = _count(config, "v_head_dim") or plain
    rank = _count(config, "q_lora_rank")
    asks = heads * (plain + rotary)
    queries = hidden * rank + rank * asks if rank else hidden * asks
    return queries + hidden * (latent + rotary) + latent * heads * (plain + values) + heads * values * hidden + 2 * hidden


def _feed_forward(config: Mapping[str, Any], hidden: int, layers: int) -> float:
    """Return the parameters of all feed-forward parts: gated ones have three matrices, others two; experts have one each."""
    matrices = (2 if _kind(config) in _UNGATED else 3) * hidden
    inner = _count(config, "intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * hidden
    experts = _count(config, "num_local_experts", "num_experts", "n_routed_experts")
    if not experts:
        return layers * matrices * inner
    routed = _count(config, "moe_intermediate_size", "intermediate_size") or inner
    shared = (_count(config, "n_shared_experts") or 0) * routed + (_count(config, "shared_expert_intermediate_size") or 0)
    if _kind(config).startswith("llama4"):
        shared = routed
    with_experts = _layers_with_experts(config, layers)
    each = matrices * (experts * routed + shared) + hidden * experts
    return with_experts * each + (layers - with_experts) * matrices * inner


def _layers_with_experts(config: Mapping[str, Any], layers: int) -> int:
    """Return how many layers have experts: the others have one plain part."""
    listed = config.get("moe_layers")
    if isinstance(listed, list):
        return min(layers, len(listed))
    plain = config.get("mlp_only_layers")
    without = len(plain) if isinstance(plain, list) else 0
    step = _count(config, "decoder_sparse_step", "interleave_moe_layer_step", "expert_layer_period") or 1
    first = _count(config, "first_k_dense_replace") or 0
    return max(0, (layers - min(first, layers)) // step - without)


# ---------------------------------------------------------------------------------------------------- the cache


def _kv_values(config: Mapping[str, Any], kv_heads: int, head_dim: int) -> int:
    latent = _count(config, "kv_lora_rank")
    if latent:  # multi-head latent attention keeps one compressed vector and the rotary part
        return latent + (_count(config, "qk_rope_head_dim") or 0)
    return 2 * kv_heads * head_dim


def _window(config: Mapping[str, Any]) -> int | None:
    if config.get("use_sliding_window") is False:
        return None
    return _count(config, "sliding_window", "attention_chunk_size")


def _layers_with_memory(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """Return how many layers keep all of a text, and how many only a window of it."""
    kinds = config.get("layer_types")
    window = _window(config)
    if isinstance(kinds, list) and len(kinds) == layers and all(isinstance(kind, str) for kind in kinds):
        windowed = sum(kind in _WINDOWED for kind in kinds) if window else 0
        return layers - windowed - sum(kind in _STATEFUL for kind in kinds), windowed
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str) and len(pattern) == layers:  # Nemotron-H: * is attention
        return max(1, pattern.count("*")), 0
    every = _count(config, "full_attention_interval", "attn_layer_period")
    if every:
        return max(1, layers // every), 0
    if not window:
        return layers, 0
    every = _count(config, "sliding_window_pattern") or _WINDOW_PATTERNS.get(_kind(config))
    if every:
        full = layers // every
    elif "max_window_layers" in config:
        full = min(layers, _count(config, "max_window_layers") or 0)
    else:
        full = 0
    return full, layers - full


# ---------------------------------------------------------------------------------------------------- bits


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return {}
    groups = found.get("config_groups")  # compressed-tensors
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    return (
        {**found, "bits": weights.get("num_bits"), "group_size": weights.get("group_size")}
        if isinstance(weights, Mapping)
        else found
    )


def _weight_bits(config: Mapping[str, Any]) -> float:
    """Return the bits of a parameter of a layer in the engine's memory: weights of 32 bits are loaded in 16 unless told otherwise.

    Groups of a quantized layer bring a scale of 16 bits and a zero point each.
    """
    found = _quantization(config)
    bits = _count(found, "bits", "w_bit")
    if bits is not None and bits <= _PLAIN_BITS:
        group = _count(found, "group_size", "q_group_size")
        return bits + (16 + bits) / group if group and bits < 16 else float(bits)
    said = f"{found.get('quant_method', '')} {found.get('quant_algo', '')}".casefold()
    if found.get("load_in_4bit") is True or "fp4" in said:
        return 4.25 if "mxfp4" in said else 4.5
    if found.get("load_in_8bit") is True or "fp8" in said:
        return 8.0
    return _PLAIN_BITS
